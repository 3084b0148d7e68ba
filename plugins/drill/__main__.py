"""The command that playbooks/drill.yml calls on the control machine."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

from . import measure, render, verdict
from .kept import drills, load, newest, save
from .plot import plot

DOCS = Path(__file__).resolve().parents[2] / "docs"


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
    """Judge the drill in `folder`, or every one of a run's folder."""
    for each in drills(folder):
        judge_one(each)
    return 0


def judge_one(folder: Path) -> None:
    """Write a drill's verdict.json and plot.svg, and print its table."""
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


def machine() -> str:
    """Say what the control machine is; in the lab it is all hosts."""
    if not Path("/proc/meminfo").exists():
        return f"{os.cpu_count()} cores, {platform.platform(terse=True)}"
    cores = len(os.sched_getaffinity(0))
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    name = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{cores} cores, {kilobytes / 2**20:.0f} GiB, {name}"


def table(folders: list[Path], docs: Path | None) -> int:
    """Print the table of the newest drills; 1 when one failed. With `docs`, write it there too."""
    kept = newest(folders)
    found = [each for _, each in kept]
    print(render.every(found))
    if docs:
        when = max(each["date"] for each in found)
        (docs / "drills").mkdir(exist_ok=True)
        for old in (docs / "drills").glob("*.svg"):
            old.unlink()
        for folder, each in kept:
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
    judging = commands.add_parser("judge", help="anew: verdict.json, plot.svg, the table")
    judging.add_argument("folder", type=Path, help="of a drill, or of a run")
    listing = commands.add_parser("table", help="the newest of each: exit 1 when one failed")
    listing.add_argument("folders", type=Path, nargs="+", help="of drills, or of runs")
    listing.add_argument("--docs", type=Path, help=f"write table, JSON and plots (as to {DOCS})")
    found = parser.parse_args()
    if found.command == "wait":
        return wait(found.folder, found.since, found.seconds)
    if found.command == "judge":
        return judge(found.folder)
    return table(found.folders, found.docs)


if __name__ == "__main__":
    sys.exit(main())
