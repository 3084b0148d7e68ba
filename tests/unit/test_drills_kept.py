"""What drills leave behind, judged again and shown together by the command."""

import json
import re
import subprocess
import sys

import pytest

from plugins.drill import render
from plugins.load import ROOT
from tests.unit.drills import CATALOGUE, DRILLS, FAULT_AT, load


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "plugins.drill", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def keep(folder, drill=DRILLS[0], fault_at=1010.0, **changes):
    """Leave in a folder what a drill does."""
    folder.mkdir(parents=True)
    lines = [json.dumps({"wall": fault_at - FAULT_AT, "run": "x"}), *map(json.dumps, load())]
    (folder / "samples").write_text("\n".join(lines) + "\n")
    drill = drill | {
        "victims": ["app1"], "holders": [], "fault_at": fault_at, "undone_at": None,
        "recovered": True, "rate": 50, "mix": CATALOGUE["drill_mix"], "skipped": "", "broken": "",
        "cron": False,
    } | changes  # fmt: skip
    (folder / "drill.json").write_text(json.dumps(drill))
    report = {
        "acknowledged": [{"item": "a"}], "missing": [], "held_back": 0, "lag": 0.01,
        "seconds": 1, "requests": 1,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    account(folder, {"a": 1})


def account(folder, sales):
    database = {"sales": sales, "jobs": [], "ticks": [], "without_tick": 0}
    (folder / "database.json").write_text(json.dumps(database))


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/drills.md").write_text(f"{render.BEGIN}\n{render.END}\n")
    return tmp_path / "docs"


def test_the_command_judges_and_lists(tmp_path, docs):
    folder = tmp_path / "web-worker-kill"
    keep(folder)
    assert command("wait", folder, "--since", 1010, "--seconds", 5).returncode == 0
    assert command("wait", folder, "--since", 1058, "--seconds", 2).returncode == 1
    done = command("judge", folder)
    assert done.returncode == 0, done.stderr
    assert "a web worker: kill -9 (app1): pass" in done.stdout
    assert command("table", folder, "--docs", docs).returncode == 0
    assert "web worker" in (docs / "drills.md").read_text()
    assert json.loads((docs / "drills.json").read_text())["drills"][0]["result"] == "pass"
    assert (docs / "drills/web-worker-kill.svg").exists()

    account(folder, {})
    assert command("judge", folder).returncode == 0
    assert command("table", folder).returncode == 1


def test_of_several_runs_the_newest_of_each_drill_is_shown_with_its_date(tmp_path, docs):
    first, second, third = (tmp_path / name for name in ("a-run", "b-run", "c-run"))
    keep(second / "web-worker-kill", DRILLS[0], fault_at=1_800_100_000.0, victims=["app2"])
    keep(first / "web-master-kill", DRILLS[1], fault_at=1_800_000_000.0)
    keep(first / "web-worker-kill", DRILLS[0], fault_at=1_800_000_100.0)
    # What was skipped later, on another lab, has measured nothing.
    keep(third / "web-worker-kill", DRILLS[0], fault_at=1_800_200_000.0, skipped="needs two")
    for run in (first, second, third):
        assert command("judge", run).returncode == 0
    account(first / "web-worker-kill", {})  # lost writes, but of an older run
    assert command("judge", first / "web-worker-kill").returncode == 0

    done = command("table", second, third, first, "--docs", docs)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["a web worker", "the gunicorn master"]
    assert re.search(r"app2 .* 2027-01-16 11:46 +pass$", lines[1])
    assert re.search(r"app1 .* 2027-01-15 08:00 +pass$", lines[2])
    assert (docs / "drills.md").read_text().count("| 2027-01-1") == 2
    known = json.loads((docs / "drills.json").read_text())
    assert known["date"] == known["drills"][0]["date"] == "2027-01-16 11:46:40 UTC"
    assert {path.stem for path in (docs / "drills").iterdir()} == {
        "web-worker-kill", "web-master-kill",
    }  # fmt: skip
    assert command("table", first).returncode == 1


def test_a_folder_without_drills_and_a_drill_without_a_verdict_are_no_pass(tmp_path):
    done = command("table", tmp_path)
    assert done.returncode == 1
    assert "no drill was kept in" in done.stderr
    keep(tmp_path / "run" / "web-worker-kill")
    assert command("table", tmp_path / "run").returncode != 0
