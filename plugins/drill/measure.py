"""From what a load saw around a fault to numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

QUIET = 5.0  # seconds without a disruption after which the service counts as back
SLOW = 2.0  # an answer that took longer was kept waiting by the fault, unless many do without it
SLOWEST = 3.0  # and one that took longer than this was, whatever is usual
CROWD = 3  # slow answers of a kind within three seconds; a few are what a busy machine does
SHARE = 0.2  # and so much of all of that kind in these seconds
WRITES = ("write", "job", "object")


class Sample(NamedTuple):
    """A request: when it was sent, in seconds since the load began, and how it went."""

    begin: float
    seconds: float
    kind: str
    good: bool

    @property
    def end(self) -> float:
        """When it was over."""
        return self.begin + self.seconds


@dataclass
class Times:
    """Of a drill, in seconds since the load began."""

    fault: float
    undone: float | None = None

    @classmethod
    def of(cls, wall: float, fault: float, undone: float | None) -> Times:
        """Read clock times; `wall` is when the load began."""
        return cls(fault - wall, None if undone is None else undone - wall)


def read(path: Path) -> tuple[float, list[Sample]]:
    """Return when the load began, and its samples by when they were sent.

    A last line that is still being written is left out.
    """
    lines = path.read_text().split("\n")[:-1]
    samples = [Sample(*json.loads(line)) for line in lines[1:]]
    return json.loads(lines[0])["wall"], sorted(samples)


def disrupted(samples: list[Sample], fault: float) -> list[Sample]:
    """Return the samples since the fault that failed, or were kept waiting among many."""
    # Not the slowest: a single answer before the fault would hide the outage behind it.
    usual = percentile((s.seconds for s in samples if s.end < fault and s.good), 0.95)
    limit = min(SLOWEST, max(SLOW, 2 * usual))
    sent = Counter((s.kind, int(s.begin)) for s in samples)
    slow = Counter((s.kind, int(s.begin)) for s in samples if s.seconds > limit)

    def among_many(sample: Sample) -> bool:
        # By kind: an outage of one kind is one, however well the others are answered.
        waited = near(slow, sample)
        return waited >= CROWD and waited / near(sent, sample) >= SHARE

    return [
        s
        for s in samples
        if s.end >= fault and (not s.good or (s.seconds > limit and among_many(s)))
    ]


def near(counted: Counter[tuple[str, int]], sample: Sample) -> int:
    """Count what was sent of a sample's kind in its second and the neighbours."""
    return sum(counted[sample.kind, int(sample.begin) + by] for by in (-1, 0, 1))


def first(samples: list[Sample], times: Times) -> float:
    """Return when the first request was sent that was disrupted; without one, the fault."""
    return min((s.begin for s in disrupted(samples, times.fault)), default=times.fault)


def recovery(
    samples: list[Sample], times: Times, from_undo: bool = False, from_first: bool = False
) -> float:
    """Return the seconds until no request was disrupted any more.

    They count from the fault. What is disrupted once the fault is undone counts from there, and
    with `from_undo` nothing before matters. With `from_first` they count from the first request
    that was disrupted: a verb has work to do before it breaks anything.
    """
    worst, begin = 0.0, first(samples, times) if from_first else times.fault
    for sample in disrupted(samples, times.fault):
        if times.undone is not None and sample.begin >= times.undone:
            worst = max(worst, after(samples, sample) - times.undone)
        elif not from_undo:
            worst = max(worst, after(samples, sample) - begin)
    return worst


def after(samples: list[Sample], last: Sample) -> float:
    """Return when the disruption was over: its answer, or the next good request, came."""
    if last.good:
        return last.end
    good = (s.begin for s in samples if s.good and s.begin > last.begin and s.seconds <= SLOW)
    return min(good, default=last.end)


def recovered(samples: list[Sample], since: float) -> bool:
    """Say whether reads and writes were answered, and none disrupted, for a while until now."""
    now = max((s.end for s in samples), default=0.0)
    bad = [s.end for s in disrupted(samples, since)]
    quiet = [s for s in samples if s.good and s.begin > max([since, *bad])]
    answered = {s.kind in WRITES for s in quiet} == {True, False}
    return answered and now - max([since, *bad]) >= QUIET


def failed(samples: Iterable[Sample], times: Times) -> Counter[str]:
    """Count the requests that failed since the fault, by kind."""
    return Counter(s.kind for s in samples if not s.good and s.end >= times.fault)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the nearest-rank percentile, 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


@dataclass
class Bin:
    """What happened in a slice of time."""

    begin: float
    reads: int = 0  # that were answered in it
    writes: int = 0
    failed: int = 0  # that were sent in it
    p99: float = 0.0  # of those sent in it


def timeline(samples: list[Sample], width: float = 0.1) -> list[Bin]:
    """Return the slices from the first sample to the last."""
    end = max((s.end for s in samples), default=0.0)
    bins = [Bin(number * width) for number in range(int(end / width) + 1)]
    sent: list[list[float]] = [[] for _ in bins]
    for sample in samples:
        begun = max(int(sample.begin / width), 0)
        sent[begun].append(sample.seconds)
        if not sample.good:
            bins[begun].failed += 1
        elif sample.kind in WRITES:
            bins[int(sample.end / width)].writes += 1
        else:
            bins[int(sample.end / width)].reads += 1
    for place, seconds in zip(bins, sent, strict=True):
        place.p99 = percentile(seconds, 0.99)
    return bins
