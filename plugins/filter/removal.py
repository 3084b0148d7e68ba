"""What a fleet can spare: the rules of remove.yml and replace_disk.yml, and what to edit after."""

from __future__ import annotations

TIERS = ("lb", "cache", "app", "redis", "db", "storage", "monitor")
# Tiers that hold data, and what they lose below three hosts.
LEAST = 3
LOSES = {
    "db": "PostgreSQL could not fail over when another is lost",
    "redis": "Sentinel could not fail over when another is lost",
    "storage": "each object would have fewer than three copies",
}
ACCEPT = "-e accept=fewer"


def tiers_of(host: str, groups: dict[str, list[str]]) -> list[str]:
    """Return the tiers of a host, in the order in which it leaves them."""
    return [tier for tier in TIERS if host in groups.get(tier, [])]


def unwell(tier: str, hosts: list[str], answers: dict[str, dict]) -> dict[str, str]:
    """Return what is wrong with the hosts of a tier, by host; who does not answer is unwell."""
    found = {}
    for host in hosts:
        rows = (answers.get(host) or {}).get("rows") or []
        row = next((row for row in rows if row["tier"] == tier), None)
        if row is None:
            found[host] = "does not answer"
        elif not row["healthy"]:
            found[host] = row["health"]
    return found


def can_not_spare(
    host: str,
    groups: dict[str, list[str]],
    answers: dict[str, dict],
    accept: str = "",
    back: bool = False,
) -> list[str]:
    """Return why a host can't be taken away, a line each; with `back` it comes back soon."""
    if host not in groups.get("all", []):
        return [f"no host {host!r} in the inventory: say -e host=<name>, as in hosts.yml"]
    problems = []
    for tier in tiers_of(host, groups):
        others = [other for other in groups[tier] if other != host]
        if not others:
            problems.append(f"{host} is the only host of tier {tier}: add another one first")
            continue
        ill = unwell(tier, others, answers)
        if tier in LOSES and ill:
            names = "; ".join(f"{name}: {reason}" for name, reason in ill.items())
            problems.append(f"tier {tier} can't spare {host} while another is unwell ({names})")
        elif len(ill) == len(others):
            problems.append(f"no other host of tier {tier} is well, {host} is needed")
        if tier in LOSES and len(others) < LEAST and accept != "fewer" and not back:
            left = "1 host" if len(others) == 1 else f"{len(others)} hosts"
            problems.append(
                f"tier {tier} would be left with {left}, and {LOSES[tier]}: "
                f"add one first, or accept that with {ACCEPT}"
            )
    return problems


class FilterModule:
    """Make the filters known to Ansible."""

    def filters(self) -> dict:
        """Name the filters."""
        return {"can_not_spare": can_not_spare, "tiers_of": tiers_of}
