"""Filters of the app tier: process types to units, settings to an environment file."""

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError

# What a process type may say, with what it means when it says nothing.
PROCESS = {
    "command": None,
    "listen": None,
    "route": None,
    "workers": None,
    "instances": 1,
    "probe": None,
    "handover": None,
    "stop_timeout": 35,
    "memory_max": "75%",  # of the host's: one that leaks must not take the host with it
    "websocket": False,
}


def app_units(processes, name):
    """List the units of the process types: one per type, or one per instance of a type."""
    units = []
    for kind, given in processes.items():
        unknown = set(given) - set(PROCESS)
        if unknown:
            raise AnsibleFilterError(f"app_processes.{kind}: unknown key {sorted(unknown)[0]}")
        if not given.get("command"):
            raise AnsibleFilterError(f"app_processes.{kind}: set its command")
        unit = {**PROCESS, **given, "type": kind}
        # Processes without a socket can't stand side by side safely: think of a clock.
        unit["handover"] = unit["handover"] or ("socket" if unit["listen"] else "restart")
        if unit["handover"] == "socket" and not unit["listen"]:
            raise AnsibleFilterError(f"app_processes.{kind}: handover: socket needs listen")
        if unit["listen"] and int(unit["instances"]) != 1:
            raise AnsibleFilterError(f"app_processes.{kind}: a listening type uses workers")
        if unit["listen"] and unit["workers"] is None:
            unit["workers"] = "auto"
        if not unit["listen"]:
            unit["probe"] = None
        for number in range(1, int(unit["instances"]) + 1):
            suffix = "" if number == 1 else f"-{number}"
            units.append({**unit, "unit": f"{name}-{kind}{suffix}"})
    return units


def environment_file(settings):
    """Write settings as lines that systemd reads back as the same strings."""
    lines = []
    for key, value in sorted(settings.items()):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise AnsibleFilterError(f"`{key}` is not the name of an environment variable")
        escaped = re.sub(r'(["\\$`])', r"\\\1", str(value))
        lines.append(f'{key}="{escaped}"\n')
    return "".join(lines)


class FilterModule:
    """Filters for Ansible."""

    def filters(self):
        """Name them."""
        return {"app_units": app_units, "environment_file": environment_file}
