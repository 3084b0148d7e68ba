"""systemd as the modules of releases use it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

SYSTEMD = Path("/etc/systemd/system")
RUNTIME = Path("/run/systemd/system")


class ActivationError(Exception):
    """The release did not come up; the message is one line, the journal goes with it."""

    def __init__(self, message, unit=None):
        super().__init__(message)
        self.unit = unit


def systemctl(*arguments, check=True):
    """Run systemctl; a unit that can't stop in its own time is killed by systemd, not by us."""
    argv = ("systemctl", *arguments)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ActivationError(f"{' '.join(argv)}: {told[0] if told else done.returncode}")
    return done.stdout.strip()


def show(unit, name):
    """Read one property of a unit."""
    return systemctl("show", "--value", f"--property={name}", unit)


def journal(unit, lines=20):
    """Read what a unit said last."""
    argv = ("journalctl", "--unit", unit, "--output=cat", "--no-pager", "-n", str(lines))
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def cause(lines):
    """Find the error that a journal names last, in plain text or inside a structured line."""
    pattern = r"(?:\\n)?([\w.]*(?:Error|Exception): [^\"\\]+)"
    found = [text.strip() for line in lines for text in re.findall(pattern, line)]
    return f" ({found[-1]})" if found else ""


def changed_since(unit, timestamp, units, files=()):
    """Say whether unit files or other files are newer than what runs."""
    since = int(show(unit, timestamp) or 0) / 1e6
    if not since:
        return False
    started = time.time() - (time.monotonic() - since)
    fragments = [Path(show(name, "FragmentPath") or "/dev/null") for name in units]
    paths = [path for path in (*fragments, *map(Path, files)) if path.is_file()]
    return any(path.stat().st_mtime > started for path in paths)
