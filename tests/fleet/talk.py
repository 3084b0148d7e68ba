"""People who talk: clients of refapp's messages, with the socket.io-client that browsers use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fleet.support import ROOT, Fleet

PATIENCE = 300  # seconds that the clients have for their last messages


def install(target: Path) -> Path:
    """Put the clients into a new folder, with the packages that their lock names."""
    shutil.copytree(ROOT / "tests/fleet/realtime", target)
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=target, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return target / "clients.js"


@contextmanager
def talking(
    fleet: Fleet, script: Path, count: int, every_ms: int = 500
) -> Iterator[dict[str, Any]]:
    """Let people talk while the block runs; yields a dictionary that has the report after it."""
    given = {
        "url": fleet.url,
        "token": fleet.login()["access_token"],
        "clients": count,
        "every_ms": every_ms,
    }
    process = subprocess.Popen(
        ["node", str(script), json.dumps(given)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": fleet.ca},
    )  # fmt: skip
    report: dict[str, Any] = {}
    try:
        assert json.loads(process.stdout.readline()) == {"joined": count}
        yield report
        output, _ = process.communicate(timeout=PATIENCE)
        report.update(json.loads(output.splitlines()[-1]))
    finally:
        process.kill()
        process.wait()


def prove(report: dict[str, Any], count: int) -> None:
    """Everyone heard everything once, in each speaker's order."""
    wrong = {name: report[name] for name in ("lost", "doubled", "disordered", "gaps")}
    assert wrong == dict.fromkeys(wrong, 0), report
    assert report["acknowledged"] == report["said"] > count, report
    assert report["heard"] == report["said"] * count, report
