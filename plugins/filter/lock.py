"""Filters of the lock that keeps two deploys apart: whose it is, and whether he is still there."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from pathlib import Path


def lock_user(_: object = None) -> str:
    """Say who runs this playbook, and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"user {os.getuid()}"
    return f"{user} at {socket.gethostname()}"


def lock_process(pid: int) -> str:
    """Name a process as no other is named, on any machine, then or later; "gone" when it is."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    # Containers of one machine share its boot, and number their processes each for itself.
    here = f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    machine = hashlib.sha256(here.encode()).hexdigest()[:12]
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        state = "X"
    return f"{machine} {pid} {'gone' if state in 'XZ' else fields[18]}"  # when it started


def lock_left(said: str, mine: str) -> bool:
    """Say whether a lock was left by a process of this machine that is gone."""
    found = re.search(r"\[(\w+) (\d+) \w+\]$", said.strip())
    if not found or found[1] != mine.split()[0]:
        return False
    return f"[{lock_process(int(found[2]))}]" not in said


class FilterModule:
    """Make the filters known to Ansible."""

    def filters(self) -> dict:
        """Name the filters."""
        return {"lock_user": lock_user, "lock_process": lock_process, "lock_left": lock_left}
