"""What happened to every request of a load."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FAILURES_KEPT = 1000


@dataclass
class Failure:
    """One request that did not get the answer it should have got."""

    time: str
    offset: float
    kind: str
    url: str
    target: str
    error: str
    status: int | None
    seconds: float
    request_id: str | None
    key: str | None
    retry_after: str | None
    body: str


def percentile(ordered: list[float], share: float) -> float:
    """Return the nearest-rank percentile of an ordered list."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Report:
    """Counts while the load runs; `as_dict` is the report file."""

    def __init__(self, run: str = "", samples: Path | None = None) -> None:
        self.run = run
        self.started = time.monotonic()
        self.wall = datetime.now(UTC)
        self.counts: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()
        self.releases: dict[str, dict[str, float]] = {}
        self.failures: list[Failure] = []
        self.latencies: list[float] = []
        self.acknowledged: list[dict[str, Any]] = []
        self.unacknowledged: list[dict[str, Any]] = []
        self.retries = 0
        self.connections = 0
        self.clients = 0  # that an open load needed
        self.held_back = 0  # requests that an open load could not send: a load that was bent
        self.lag = 0.0  # seconds that an open load was behind its rate, at worst
        self.abandoned = ""  # why it ended before anybody asked it to
        self.missing: list[str] = []  # files that were completed, and are not there
        # Written as it happens, a line a request: who waits for recovery reads along.
        self._samples = samples.open("w", buffering=1) if samples else None
        if self._samples:
            wall = self.wall.timestamp()
            self._samples.write(json.dumps({"wall": wall, "run": run}) + "\n")
        self._last_success = self.started
        self._gap = (0.0, 0.0)

    def success(self, kind: str, target: str, status: int, seconds: float) -> None:
        """Count a request that was answered as it should be."""
        self.counts[kind] += 1
        self.targets[target] += 1
        self.statuses[str(status)] += 1
        self.latencies.append(seconds)
        self._sample(kind, seconds, True)
        self._close_gap()

    def failure(self, failure: Failure) -> None:
        """Count a request that failed, and keep the first thousand of them."""
        self.counts[failure.kind] += 1
        self.failed[failure.kind] += 1
        self.targets[failure.target] += 1
        self.errors[failure.error] += 1
        self._sample(failure.kind, failure.seconds, False)
        if failure.status is not None:
            self.statuses[str(failure.status)] += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(failure)

    def saw(self, host: str | None, release: str | None) -> None:
        """Note who answered, where the answer says so."""
        if host:
            self.hosts[host] += 1
        if release:
            now = round(self.offset(), 3)
            seen = self.releases.setdefault(release, {"count": 0, "first": now})
            seen["count"] += 1
            seen["last"] = now

    def offset(self) -> float:
        """Return the seconds since the load began."""
        return time.monotonic() - self.started

    def _sample(self, kind: str, seconds: float, good: bool) -> None:
        """Note when a request was sent, how long it took, and whether it was answered well."""
        if self._samples:
            begin = round(self.offset() - seconds, 3)
            self._samples.write(json.dumps([begin, round(seconds, 3), kind, good]) + "\n")

    def _close_gap(self) -> None:
        now = time.monotonic()
        if now - self._last_success > self._gap[0]:
            self._gap = (now - self._last_success, self._last_success - self.started)
        self._last_success = now

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for the report file."""
        seconds = self.offset()
        ordered = sorted(self.latencies)
        last = self._last_success - self.started
        gap, gap_at = max(self._gap, (seconds - last, last))
        requests = sum(self.counts.values())
        return {
            "run": self.run,
            "started": self.wall.isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "requests": requests,
            "failed": sum(self.failed.values()),
            "rate": round(requests / seconds, 1) if seconds else 0.0,
            "longest_gap": round(gap, 3),
            "longest_gap_at": round(gap_at, 3),
            "latency": {
                "p50": round(percentile(ordered, 0.50), 4),
                "p95": round(percentile(ordered, 0.95), 4),
                "p99": round(percentile(ordered, 0.99), 4),
                "max": round(ordered[-1], 4) if ordered else 0.0,
            },
            "counts": dict(self.counts),
            "failed_by_kind": dict(self.failed),
            "statuses": dict(self.statuses),
            "errors": dict(self.errors),
            "targets": dict(self.targets),
            "hosts": dict(self.hosts),
            "releases": self.releases,
            "retries": self.retries,
            "connections": self.connections,
            "clients": self.clients,
            "held_back": self.held_back,
            "lag": round(self.lag, 3),
            "abandoned": self.abandoned,
            "missing": self.missing,
            "failures": [asdict(failure) for failure in self.failures],
            "acknowledged": self.acknowledged,
            "unacknowledged": self.unacknowledged,
        }


def summary(report: dict[str, Any]) -> str:
    """Say the report in a few lines."""
    latency = {name: f"{seconds * 1000:.0f}" for name, seconds in report["latency"].items()}
    lines = [
        f"{report['requests']} requests in {report['seconds']:.1f} s ({report['rate']:.0f}/s), "
        f"{report['failed']} failed",
        f"longest gap between successes {report['longest_gap']:.2f} s; latency ms: "
        f"p50 {latency['p50']}, p99 {latency['p99']}, max {latency['max']}",
        "kinds: " + ", ".join(f"{kind} {count}" for kind, count in report["counts"].items()),
    ]
    if report["abandoned"]:
        lines.append(f"ended early: {report['abandoned']}")
    if report["hosts"]:
        lines.append("hosts: " + ", ".join(f"{h} {n}" for h, n in sorted(report["hosts"].items())))
    if report["releases"]:
        seen = (f"{name} {seen['count']}" for name, seen in report["releases"].items())
        lines.append("releases: " + ", ".join(seen))
    for failure in report["failures"][:10]:
        lines.append(
            f"failed at {failure['offset']:.2f} s after {failure['seconds']:.2f} s: "
            f"{failure['kind']} {failure['url']} ({failure['target']}): {failure['error']}"
            + (f" [request {failure['request_id']}]" if failure["request_id"] else "")
        )
    if report["failed"] > 10:
        lines.append(f"… and {report['failed'] - 10} more: see the report file")
    return "\n".join(lines)
