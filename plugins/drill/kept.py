"""The folders that drills leave: which drills are in them, of when, and which is the newest."""

from __future__ import annotations

import itertools
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

CATALOGUE = Path(__file__).resolve().parents[2] / "playbooks/vars/drills.yml"


def load(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def save(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def drills(folder: Path) -> list[Path]:
    """Return a drill's folder, or those of all drills of a run."""
    if (folder / "drill.json").exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/drill.json"))
    return found or sys.exit(f"no drill was kept in {folder}")


def date(folder: Path) -> str:
    """Return when a drill broke what it breaks, or was given up, so that dates sort."""
    file = folder / "drill.json"
    second = load(file).get("fault_at") or file.stat().st_mtime
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def newest(folders: list[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Return folder and verdict of each drill's last time, in the catalogue's order.

    One that was skipped measured nothing, and hides no earlier one that did.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}

    def rank(each: tuple[Path, dict[str, Any]]) -> tuple[bool, str]:
        return not each[1]["result"].startswith("skipped"), each[1]["date"]

    for folder in itertools.chain.from_iterable(map(drills, folders)):
        each = folder, load(folder / "verdict.json") | {"date": date(folder)}
        known = found.setdefault(each[1]["name"], each)
        found[each[1]["name"]] = max(known, each, key=rank)
    names = [drill["name"] for drill in yaml.safe_load(CATALOGUE.read_text())["drills"]]
    order = {name: number for number, name in enumerate(names)}
    return sorted(found.values(), key=lambda each: order.get(each[1]["name"], len(order)))
