"""Filters of drill.yml: which drills are meant, and which of them this fleet can have."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

NUMBERS = {1: "one", 2: "two", 3: "three"}


def drills_chosen(catalogue: list[dict], fault: str) -> list[dict]:
    """Return the drills that `fault` names, with commas between, or `all`."""
    names = [drill["name"] for drill in catalogue]
    wanted = names if fault == "all" else [name for name in fault.split(",") if name]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise AnsibleFilterError(
            f"Say -e fault=<name>, several with commas, or all{', not ' * bool(unknown)}"
            f"{', '.join(unknown)}. Names: {', '.join(names)}"
        )
    return [drill for drill in catalogue if drill["name"] in wanted]


def drill_skip(
    drill: dict, groups: dict, processes: dict, commands: dict, virtual_ip: str = ""
) -> str:
    """Return why this fleet can't have the drill, nothing when it can."""
    tier, needs, fault = drill["tier"], drill.get("needs", 1), drill["fault"]
    if len(groups.get(tier, [])) < needs:
        return f"needs {NUMBERS.get(needs, needs)} {tier} host{'s' * (needs > 1)}"
    if drill.get("process", "web") not in processes:
        return f"needs the process type {drill['process']}"
    if "address_holder" in (drill.get("victim"), drill.get("single")) and not virtual_ip:
        return "needs fleet_virtual_ip"
    missing = {fault["command"], UNDONE_BY[fault["command"]]} if fault["how"] == "host" else set()
    missing -= {name for name, command in commands.items() if command}
    if missing:
        return f"needs drill_host_commands: {', '.join(sorted(missing))}"
    return ""


# What undoes a command of drill_host_commands.
UNDONE_BY = {"stop": "start", "kill": "start", "freeze": "thaw"}


def drill_lasts(fault: dict) -> bool:
    """Say whether the fault stays until it is undone, and does not mend by itself."""
    return fault["how"] in ("host", "service", "cut", "full") or fault.get("signal") == "STOP"


# Who is asked for a role.
ASKED = {"address_holder": "lb", "redis_primary": "redis", "sentinel_primary": "redis"}


def drill_asked(role: str) -> str:
    """Return the tier whose hosts know who has a role."""
    return ASKED.get(role, "db")


class FilterModule:
    """Make the filters known to Ansible."""

    def filters(self) -> dict:
        """Name the filters."""
        return {
            "drills_chosen": drills_chosen,
            "drill_asked": drill_asked,
            "drill_lasts": drill_lasts,
            "drill_skip": drill_skip,
            "drill_undone_by": UNDONE_BY.__getitem__,
        }
