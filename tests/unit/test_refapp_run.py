"""What fails now and then among refapp's tests is not passed because it passed once more."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "refapp/tests/run"
FLAKY = """
from pathlib import Path

def test_fails_now_and_then():
    starts = Path("starts")
    number = len(starts.read_text()) + 1 if starts.exists() else 1
    starts.write_text("x" * number)
    assert number not in {failing}

def test_passes():
    pass
"""


@pytest.fixture
def tree(tmp_path):
    """A repository whose environment for refapp's tests is there already."""
    tests = tmp_path / "refapp/tests"
    tests.mkdir(parents=True)
    shutil.copy(RUN, tests)
    for folder in (tests.parent, tests):
        (folder / "requirements.txt").write_text("")
    (tests.parent / "pytest.ini").write_text("[pytest]\nmarkers = fleet\n")
    python = tmp_path / ".lab/venv-refapp/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    made_from = hashlib.sha256(b"").hexdigest()[:16]
    (python.parents[1] / "made-from").write_text(made_from + "\n")
    return tests.parent


@pytest.mark.parametrize(
    ("failing", "starts", "code"),
    [((), 1, 0), ((1,), 4, 0), ((1, 2), 2, 1), ((1, 3), 3, 1), ((1, 4), 4, 1)],
)
def test_what_failed_must_pass_three_times_alone(tree, failing, starts, code):
    (tree / "tests/test_flaky.py").write_text(FLAKY.format(failing=failing))
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [tree / "tests/run"],
        env=environ | {"TEST_PROCESSES": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert len((tree / "starts").read_text()) == starts
    assert re.search(r"\d (passed|failed).* in [\d.]+s", done.stdout.splitlines()[-1])
