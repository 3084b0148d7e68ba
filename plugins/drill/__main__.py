"""The command that playbooks/drill.yml calls on the control machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import measure, render, verdict
from .plot import plot

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def save(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def wait(folder: Path, since: float, seconds: float) -> int:
    """Return 0 as soon as the load in `folder` is answered again, 1 when it is not in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        wall, samples = measure.read(folder / "samples")
        if measure.recovered(samples, since - wall):
            return 0
        time.sleep(1)
    return 1


def judge(folder: Path) -> int:
    """Write verdict.json and plot.svg of the drill in `folder`, and print its table."""
    drill = load(folder / "drill.json")
    if drill.get("skipped"):
        found = verdict.skipped(drill, drill["skipped"])
    elif drill.get("broken"):
        found = verdict.broken(drill, drill["broken"])
    else:
        wall, samples = measure.read(folder / "samples")
        report = load(folder / "report.json")
        found = verdict.judge(drill, samples, report, load(folder / "database.json"), wall)
        times = measure.Times.of(wall, drill["fault_at"], drill.get("undone_at"))
        (folder / "plot.svg").write_text(plot(found, samples, times))
    save(folder / "verdict.json", found)
    print(render.one(found))
    return 0


def machine() -> str:
    """Say what the control machine is; in the lab it is all hosts."""
    cores = len(os.sched_getaffinity(0))
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    system = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    return f"{cores} cores, {kilobytes / 2**20:.0f} GiB, {system['PRETTY_NAME'].strip(chr(34))}"


def table(folders: list[Path], docs: Path | None) -> int:
    """Print the table of several drills; 1 when one failed. With `docs`, write it there too."""
    found = [load(folder / "verdict.json") for folder in folders]
    print(render.every(found))
    if docs:
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        (docs / "drills").mkdir(exist_ok=True)
        for old in (docs / "drills").glob("*.svg"):
            old.unlink()
        for folder, each in zip(folders, found, strict=True):
            if (folder / "plot.svg").exists():
                plain = (folder / "plot.svg").read_text()
                (docs / "drills" / f"{each['name']}.svg").write_text(plain)
        save(docs / "drills.json", {"date": when, "machine": machine(), "drills": found})
        page = docs / "drills.md"
        text = render.markdown(found, when, machine())
        page.write_text(render.inserted(page.read_text(), text))
    return 1 if any(each["result"].startswith("fail") for each in found) else 0


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="drill", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    waiting = commands.add_parser("wait", help="until the load is answered again")
    waiting.add_argument("folder", type=Path)
    waiting.add_argument("--since", type=float, required=True, help="clock time of the fault")
    waiting.add_argument("--seconds", type=float, default=60)
    judging = commands.add_parser("judge", help="one drill: verdict.json, plot.svg, its table")
    judging.add_argument("folder", type=Path)
    listing = commands.add_parser("table", help="several drills: exit 1 when one failed")
    listing.add_argument("folders", type=Path, nargs="+")
    listing.add_argument("--docs", type=Path, help=f"write table, JSON and plots (as to {DOCS})")
    found = parser.parse_args()
    if found.command == "wait":
        return wait(found.folder, found.since, found.seconds)
    if found.command == "judge":
        return judge(found.folder)
    return table(found.folders, found.docs)


if __name__ == "__main__":
    sys.exit(main())
