"""Filters of the bake time: whether requests to a host say that its release is bad."""

from __future__ import annotations

from collections import Counter

LEAST_ERRORS = 5  # fewer say nothing
LEAST_REQUESTS = 100  # fewer have no 99th percentile
WORSE = 2  # times the share before the switch: some apps always fail a little


class Seen:
    """What all balancers and caches together saw of a host."""

    def __init__(self, answers: list[dict], address: str) -> None:
        # One that is away, or skipped, has no traffic to tell of.
        rows = [each["traffic"][address] for each in answers if address in each.get("traffic", {})]
        self.requests = sum(row["requests"] for row in rows)
        self.statuses = sum((Counter(row["errors"]) for row in rows), Counter())
        self.errors = self.statuses.total()
        self.share = self.errors / self.requests if self.requests else 0.0
        self.p99 = max((row["p99"] for row in rows), default=0.0)

    def __str__(self) -> str:
        return f"{self.errors} of {self.requests}"


def traffic_fault(
    answers: list[dict],
    before: list[dict],
    address: str,
    errors: float = 5,
    p99: float = 0,
    slower: float = 0,
) -> str:
    """Say what is wrong with the requests to a host since its switch, or nothing.

    `errors` is the per cent that may fail, `p99` the seconds that 99 of 100 must stay under, and
    `slower` how many times their seconds of before; 0 sets no limit.
    """
    now, then = Seen(answers, address), Seen(before, address)
    limit = max(float(errors) / 100, WORSE * then.share)
    if now.errors >= LEAST_ERRORS and now.share > limit:
        statuses = ", ".join(f"{n} times {status}" for status, n in sorted(now.statuses.items()))
        return f"{now} requests failed since the switch ({statuses}), {then} in the minute before"
    limits = [float(p99)] if float(p99) else []
    if float(slower) and then.requests >= LEAST_REQUESTS:
        limits.append(float(slower) * then.p99)
    if limits and now.requests >= LEAST_REQUESTS and now.p99 > min(limits):
        return (
            f"1 of 100 requests took {now.p99:.3g} s or more since the switch, "
            f"{then.p99:.3g} s before; allowed are {min(limits):.3g} s"
        )
    return ""


class FilterModule:
    """Make the filter known to Ansible."""

    def filters(self) -> dict:
        """Name it."""
        return {"traffic_fault": traffic_fault}
