"""A drill's numbers against its budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ..load.mix import Mix
from .measure import WRITES, Sample, Times, failed, recovery

BENT = 0.02  # share of requests that a load may leave out before it proves nothing
PULSE = 10.0  # seconds between the ticks of the schedule that is watched
LATE = 15.0  # seconds that a tick may be late where no recovery is promised
GROUPS = {
    "all": Mix.KINDS,
    "cached": ("app", "total"),
    "reads": ("app", "total", "sales", "login", "file"),
    "writes": WRITES,
}


def check(name: str, budget: Any, measured: Any, passed: bool) -> dict[str, Any]:
    """Return a row of the drill's table; None was measured when what is waited for never came."""
    return {"check": name, "budget": budget, "measured": measured, "passed": passed}


def judge(
    drill: dict[str, Any],
    samples: list[Sample],
    report: dict[str, Any],
    database: dict[str, Any],
    wall: float,
) -> dict[str, Any]:
    """Return the verdict: a row for every promise, and whether all were kept.

    `drill` is an entry of the catalogue with what happened: victims, fault_at, undone_at, rate,
    mix, holders, cron (whether the app has it). `report` is the load's, which began at `wall`, a
    clock time as fault_at is. `database` holds what is there afterwards: sales (how many rows an
    item has), jobs as [made, ended or null, state], ticks as [due, made, whether it has a job],
    without_tick (how many jobs of cron no tick made).
    """
    times = Times.of(wall, drill["fault_at"], drill.get("undone_at"))
    rows = [*speed(drill, samples, times, database), *failures(drill, samples, times)]
    rows += writes(report, database)
    end = wall + max((sample.end for sample in samples), default=0.0)
    rows += [*single(drill), *ticks(drill, database, end), *honest(report)]
    if not drill["recovered"]:
        rows.append(check("answered again in the end", True, False, False))
    return {
        "name": drill["name"],
        "title": drill["title"],
        "tier": drill["tier"],
        "victims": drill["victims"],
        "result": "pass" if all(row["passed"] for row in rows) else "fail",
        "seconds": report["seconds"],
        "requests": report["requests"],
        "checks": rows,
    }


def speed(
    drill: dict[str, Any], samples: list[Sample], times: Times, database: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Recovery, and the slowest answer where it is promised."""
    budget, fault = drill["budget"], drill["fault_at"]
    undo, verb = drill.get("from") == "undo", drill["fault"]["how"] == "verb"
    measure = drill.get("measure", "requests")
    if measure == "jobs":
        done = [(made, end) for made, end, _ in database["jobs"] if end and end >= fault]
        seconds = max((end - max(made, fault) for made, end in done), default=None)
    elif measure == "ticks":
        late = [(tick, made) for tick, made, _ in database["ticks"] if made >= fault]
        seconds = max((made - max(tick, fault) for tick, made in late), default=None)
    else:
        seconds = recovery(samples, times, from_undo=undo, from_first=verb)
    limit = budget.get("recovery")
    counted = " (after it is undone)" * undo or " (from the first disrupted)" * verb
    name = f"recovery, s{counted}"
    if seconds is None:
        yield check(name, limit, None, False)
    else:
        yield check(name, limit, round(seconds, 1), limit is None or seconds <= limit)
    slowest = max((s.seconds for s in samples if s.end >= times.fault), default=0.0)
    limit = budget.get("slowest")
    yield check("slowest answer, s", limit, round(slowest, 1), limit is None or slowest <= limit)


def failures(
    drill: dict[str, Any], samples: list[Sample], times: Times
) -> Iterator[dict[str, Any]]:
    """Failed requests; a budget is as many seconds' worth of the kind's rate."""
    counted = failed(samples, times)
    weights, promised = drill["mix"], drill["budget"].get("failed", {})
    left = {kind for kind in weights if kind in counted}
    for group, seconds in promised.items():
        kinds = GROUPS.get(group, (group,))
        share = sum(weights.get(kind, 0) for kind in kinds) / sum(weights.values())
        limit = round(seconds * drill["rate"] * share)
        number = sum(counted[kind] for kind in kinds)
        left -= set(kinds)
        yield check(f"failed: {group}", limit, number, number <= limit)
    for kind in sorted(left):
        yield check(f"failed: {kind}", None, counted[kind], True)


def writes(report: dict[str, Any], database: dict[str, Any]) -> list[dict[str, Any]]:
    """What was acknowledged, and is not there, or there twice."""
    rows = database["sales"]
    accepted = {sale["item"] for sale in report["acknowledged"]}
    lost = sorted(accepted - rows.keys())
    doubled = sorted(item for item, count in rows.items() if count > 1)
    return [
        check("acknowledged writes", None, len(accepted), len(accepted) > 0),
        check("lost writes and jobs", 0, len(lost), not lost),
        check("doubled writes and jobs", 0, len(doubled), not doubled),
        check("lost objects", 0, len(report["missing"]), not report["missing"]),
    ]


def single(drill: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Never two primaries: as seen while broken, and in the end exactly one."""
    if drill.get("single"):
        most = max((len(holders) for holders in drill["holders"]), default=0)
        last = len(drill["holders"][-1]) if drill["holders"] else 0
        yield check("primaries at one time", 1, most, most == last == 1)


def ticks(drill: dict[str, Any], database: dict[str, Any], end: float) -> Iterator[dict[str, Any]]:
    """Every tick of cron is there once, until the load's end, and has its job.

    Cron leaves out what is older than the schedule's ttl: a whole fleet that was away has a gap.
    """
    found, recovery = database["ticks"], drill["budget"].get("recovery")
    steps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(found)]
    gaps = sorted(step for step in steps if abs(step - PULSE) > 0.5)
    if drill["tier"] == "all" and gaps and PULSE < gaps[-1] <= (recovery or 0):
        gaps.pop()
    bad = len(gaps) + sum(not has_job for _, _, has_job in found)
    yield check("ticks missed or without a job", 0, bad, not bad)
    doubled = database["without_tick"]
    yield check("doubled ticks", 0, doubled, not doubled)
    if drill["cron"]:
        limit = PULSE + max(LATE, recovery or 0)
        silent = round(end - found[-1][0], 1) if found else None
        kept = silent is not None and silent <= limit
        yield check("last tick before the load's end, s", limit, silent, kept)


def honest(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The load was sent as promised."""
    yield check("load behind its rate, s", None, round(report["lag"], 1), True)
    limit, unsent = round(report["requests"] * BENT), report["held_back"]
    if unsent:
        yield check("requests that the load could not send", limit, unsent, unsent <= limit)


def skipped(drill: dict[str, Any], why: str) -> dict[str, Any]:
    """Return the verdict of a drill that this fleet can't have."""
    return {
        **{name: drill[name] for name in ("name", "title", "tier")},
        **{"victims": [], "result": f"skipped: {why}", "checks": []},
    }


def broken(drill: dict[str, Any], why: str) -> dict[str, Any]:
    """Return the verdict of a drill that did not come to its end."""
    return {**skipped(drill, ""), "victims": drill["victims"], "result": f"fail: {why}"}
