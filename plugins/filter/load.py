"""A filter of prove_start.yml: whom a load works for."""

from __future__ import annotations

import multiprocessing
import os


def playbook_pid(_: object = None) -> int:
    """Return the process of ansible-playbook; its tasks are templated in short-lived children."""
    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


class FilterModule:
    """Make the filter known to Ansible."""

    def filters(self) -> dict:
        """Name the filter."""
        return {"playbook_pid": playbook_pid}
