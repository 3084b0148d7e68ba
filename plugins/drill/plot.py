"""A drill as a picture: what was answered, what failed and how long it took, around the fault."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from .measure import Bin, Sample, Times, first, percentile, timeline

WIDTH, LEFT, RIGHT, TOP = 900, 70, 24, 72
PANEL, SPACE = 120, 34
STEP = 0.5  # seconds a point; at 50 requests a second less is noise
COLOURS = {"reads": "#2563eb", "writes": "#059669", "failed": "#dc2626", "p99": "#7c3aed"}
STYLE = """
  text { font: 12px sans-serif; fill: #334155 } .title { font: bold 16px sans-serif }
  .pass { fill: #059669; font-weight: bold } .fail { fill: #dc2626; font-weight: bold }
  .axis { stroke: #94a3b8 } .grid { stroke: #e2e8f0 } .end { text-anchor: end }
  .mid { text-anchor: middle } polyline { fill: none; stroke-width: 1.6 }
  .mark { stroke: #0f172a; stroke-dasharray: 4 3 } .out { fill: #fef3c7 }
""".strip()


def ticks(most: float, wanted: int = 4) -> list[float]:
    """Return round numbers from 0 to `most`."""
    raw = max(most, 1e-9) / wanted
    size = 10.0 ** len(str(int(raw))) / 10 if raw >= 1 else 0.1
    step = next(size * by for by in (1, 2, 5, 10, 20, 50) if size * by >= raw)
    return [step * number for number in range(int(most / step) + 1)]


class Canvas:
    """The panels of one picture, with seconds from the fault to the right."""

    def __init__(self, begin: float, end: float, panels: int) -> None:
        self.begin, self.end = begin, max(end, begin + 1)
        self.bottom = TOP + panels * (PANEL + SPACE) - SPACE
        self.parts: list[str] = []

    def x(self, second: float) -> float:
        """Return where a second is."""
        share = (second - self.begin) / (self.end - self.begin)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def text(self, x: float, y: float, words: str, style: str = "") -> None:
        """Write."""
        self.parts.append(f'<text x="{x}" y="{y}" class="{style}">{escape(words)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Draw a straight line."""
        self.parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{style}"/>')

    def panel(self, number: int, title: str, most: float) -> Callable[[float], float]:
        """Draw a panel's frame; return where a value of it is."""
        top = TOP + number * (PANEL + SPACE)
        scale = max(most, 1e-9) * 1.05

        def y(value: float) -> float:
            return round(top + PANEL * (1 - min(value / scale, 1)), 1)

        self.text(LEFT, top - 7, title)
        for value in ticks(most):
            self.line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid" if value else "axis")
            self.text(LEFT - 6, y(value) + 4, f"{value:g}", "end")
        return y

    def curve(self, bins: list[Bin], y: Callable[[float], float], name: str, by: float) -> None:
        """Draw one number of every slice."""
        points = " ".join(
            f"{self.x(place.begin + STEP / 2)},{y(getattr(place, name) * by)}"
            for place in bins
            if self.begin <= place.begin < self.end
        )
        self.parts.append(f'<polyline points="{points}" stroke="{COLOURS[name]}"/>')

    def svg(self) -> str:
        """Return the picture."""
        height = self.bottom + 44
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}">\n<style>{STYLE}</style>\n'
            f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
        )


def moved(samples: list[Sample], by: float) -> list[Sample]:
    """Return samples with their times from another zero."""
    return [sample._replace(begin=sample.begin + by) for sample in samples]


def plot(verdict: dict[str, Any], samples: list[Sample], times: Times) -> str:
    """Return the picture of a drill as SVG."""
    # Whole steps, so that slices begin at the fault.
    shift = -(times.fault % STEP)
    bins = timeline(moved(samples, shift), STEP)
    zero = times.fault + shift
    for place in bins:
        place.begin -= zero
    last = max((sample.begin for sample in samples), default=0.0) - times.fault
    canvas = Canvas(max(-10.0, -zero), last, 3)
    recovery = next(row for row in verdict["checks"] if row["check"].startswith("recovery"))
    undone = None if times.undone is None else times.undone - times.fault
    start = undone or 0.0 if "undone" in recovery["check"] else 0.0
    if "disrupted" in recovery["check"]:
        start = first(samples, times) - times.fault
    took = recovery["measured"]
    width = canvas.x(start + took) - canvas.x(start) if took is not None else 0
    if 0 < width < WIDTH:
        canvas.parts.append(
            f'<rect x="{canvas.x(start)}" y="{TOP}" width="{width:.1f}" '
            f'height="{canvas.bottom - TOP}" class="out"/>'
        )

    canvas.text(LEFT, 24, f"{verdict['title']} ({', '.join(verdict['victims'])})", "title")
    budget = "" if recovery["budget"] is None else f" of {recovery['budget']} s"
    canvas.text(LEFT, 44, f"recovery {'never' if took is None else f'{took} s'}{budget}")
    canvas.text(WIDTH - RIGHT, 24, verdict["result"], f"{verdict['result'].split(':')[0]} end")

    # What had waited comes all at once, and would make the rest flat.
    usual = percentile((max(b.reads, b.writes) / STEP for b in bins), 0.5)
    y = canvas.panel(0, "answered a second", 2 * usual)
    canvas.curve(bins, y, "reads", 1 / STEP)
    canvas.curve(bins, y, "writes", 1 / STEP)
    for place, name in ((WIDTH - 130, "reads"), (WIDTH - 75, "writes")):
        canvas.parts.append(f'<text x="{place}" y="{TOP - 7}" style="fill:{COLOURS[name]}">'
                            f"{name}</text>")  # fmt: skip
    y = canvas.panel(1, "failed a second", max(5.0, *(b.failed / STEP for b in bins)))
    for place in bins:
        if place.failed:
            top = y(place.failed / STEP)
            canvas.parts.append(
                f'<rect x="{canvas.x(place.begin)}" y="{top}" width="3.5" '
                f'height="{y(0) - top:.1f}" fill="{COLOURS["failed"]}"/>'
            )
    y = canvas.panel(2, "p99, s, of what was sent then", max(0.5, *(b.p99 for b in bins)))
    canvas.curve(bins, y, "p99", 1)

    for second, words in ((0.0, "fault"), (undone, "undone")):
        if second is not None:
            canvas.line(canvas.x(second), TOP - 4, canvas.x(second), canvas.bottom, "mark")
            canvas.text(canvas.x(second) + 4, TOP + 10, words)
    for second in ticks(canvas.end, 10):
        canvas.text(canvas.x(second), canvas.bottom + 18, f"{second:g}", "mid")
    canvas.text(WIDTH - RIGHT, canvas.bottom + 36, "seconds from the fault", "end")
    return canvas.svg()
