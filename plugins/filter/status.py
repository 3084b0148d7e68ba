"""Filters of status.yml: from what hosts answered to one table."""

from __future__ import annotations

from collections import Counter

COLUMNS = ("host", "tier", "release", "processes", "health")


def status_rows(hosts: list[str], answers: dict[str, dict]) -> list[dict]:
    """Return a row a host and tier; a host that did not answer has one that says so."""
    rows = []
    for host in hosts:
        answer = answers.get(host) or {}
        if answer.get("rows"):
            rows += [{"host": host, **row} for row in answer["rows"]]
        elif answer.get("rows") is None:
            reason = " ".join(str(answer.get("msg", "no answer")).split())
            health = f"unreachable: {reason[-100:]}" if answer.get("unreachable") else reason[-100:]
            rows.append({**dict.fromkeys(COLUMNS, "-"), "host": host, "health": health})
    mark_mixed([row for row in rows if row["tier"] == "app" and row["release"] != "-"])
    mark_lone_page([row for row in rows if row["tier"] == "lb" and row.get("healthy")])
    return rows


def mark_lone_page(rows: list[dict]) -> None:
    """Call a balancer unwell that alone shows the maintenance page: it was away when that ended."""
    shown = [row for row in rows if "maintenance page on" in row["health"]]
    if len(shown) < len(rows):
        for row in shown:
            row["health"] += " and not on every balancer: run maintenance.yml"
            row["healthy"] = False


def mark_mixed(rows: list[dict]) -> None:
    """Call app hosts unwell whose release is not that of most; where no release has most, all."""
    counts = Counter(row["release"] for row in rows).most_common()
    if len(counts) < 2:
        return
    fleet, clear = counts[0][0], counts[0][1] > counts[1][1]
    mixed = f"the fleet is mixed: rollback.yml -e release=<{' or '.join(sorted(dict(counts)))}>"
    astray = f"not the fleet's release: rollback.yml -e release={fleet}"
    for row in rows:
        if clear and row["release"] == fleet:
            continue
        wrong = [] if row.get("healthy", True) else [row["health"]]
        row["health"] = "; ".join([*wrong, astray if clear else mixed])
        row["healthy"] = False


def status_table(rows: list[dict]) -> str:
    """Return rows as an aligned table with a head, one line each."""
    lines = [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]
    widths = [max(len(str(line[column])) for line in lines) for column in COLUMNS]
    return "\n".join(
        "  ".join(
            str(line[column]).ljust(width) for column, width in zip(COLUMNS, widths, strict=True)
        ).rstrip()
        for line in lines
    )


class FilterModule:
    """Make the filters known to Ansible."""

    def filters(self) -> dict:
        """Name the filters."""
        return {"status_rows": status_rows, "status_table": status_table}
