"""Verdicts as tables, for a terminal and for docs/drills.md."""

from __future__ import annotations

from typing import Any

BEGIN, END = "<!-- drills: begin -->", "<!-- drills: end -->"
HEAD = (
    *("fault", "victim", "recovery s", "failed", "slowest s", "lost", "doubled", "date", "result"),
)


def shown(value: Any) -> str:
    """Return a number as it is read; no budget is a dash."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def found(value: Any) -> str:
    """Return what was measured as it is read."""
    return "never" if value is None else shown(value)


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Return rows as columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def one(verdict: dict[str, Any]) -> str:
    """Return a drill's table: budget, measured, pass or fail."""
    title = f"{verdict['title']} ({', '.join(verdict['victims']) or 'no victim'})"
    if not verdict["checks"]:
        return f"{title}: {verdict['result']}"
    rows = [("what", "budget", "measured", "result")]
    rows += [
        (
            row["check"],
            shown(row["budget"]),
            found(row["measured"]),
            "FAIL" if not row["passed"] else "pass" if row["budget"] is not None else "",
        )
        for row in verdict["checks"]
    ]
    return f"{title}: {verdict['result']}\n{aligned(rows)}"


def cells(verdict: dict[str, Any]) -> tuple[str, ...]:
    """Return a drill's line of the table of all: measured, and its budget in brackets."""

    def said(name: str) -> str:
        rows = [row for row in verdict["checks"] if row["check"].startswith(name)]
        return ", ".join(
            f"{row['check'].partition(': ')[2]} {found(row['measured'])}".strip()
            + (f" (≤ {shown(row['budget'])})" if row["budget"] is not None else "")
            for row in rows
        )

    def total(name: str) -> str:
        rows = verdict["checks"]
        return str(sum(row["measured"] for row in rows if row["check"].startswith(name)))

    date = verdict.get("date", "")[:16]
    if not verdict["checks"]:
        return (verdict["title"], *([""] * 6), date, verdict["result"])
    return (
        verdict["title"],
        ", ".join(verdict["victims"]),
        said("recovery"),
        said("failed") or "0",
        said("slowest"),
        total("lost"),
        total("doubled"),
        date,
        verdict["result"],
    )


def every(verdicts: list[dict[str, Any]]) -> str:
    """Return the table of several drills, for a terminal."""
    return aligned([HEAD, *(cells(verdict) for verdict in verdicts)])


def markdown(verdicts: list[dict[str, Any]], when: str, machine: str) -> str:
    """Return the same for docs/drills.md, with a link to each plot."""
    lines = [f"{when}, {machine}.", "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for verdict in verdicts:
        title, *others = cells(verdict)
        if verdict["checks"]:
            title = f"[{title}](drills/{verdict['name']}.svg)"
        lines.append(f"| {' | '.join([title, *others])} |")
    return "\n".join(lines)


def inserted(page: str, table: str) -> str:
    """Return the page with another table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{behind}"
