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
FAILS_OVER = ("db", "redis")
LEADS = {"primary", "master"}  # roles of a leader, in the words of Patroni and of Redis
ACCEPT = "-e accept=fewer"


def rows_of(tier: str, host: str, answers: dict[str, dict]) -> list[dict]:
    """Return what a host said of a tier; nothing when it is lost, or has no such tier."""
    rows = (answers.get(host) or {}).get("rows") or []
    return [row for row in rows if row["tier"] == tier]


def tiers_of(host: str, groups: dict[str, list[str]]) -> list[str]:
    """Return the tiers of a host, in the order in which it leaves them."""
    return [tier for tier in TIERS if host in groups.get(tier, [])]


def unwell(tier: str, hosts: list[str], answers: dict[str, dict]) -> dict[str, str]:
    """Return what is wrong with the hosts of a tier, by host; who does not answer is unwell."""
    found = {}
    for host in hosts:
        rows = rows_of(tier, host, answers)
        if not rows:
            found[host] = "does not answer"
        elif not rows[0]["healthy"]:
            found[host] = rows[0]["health"]
    return found


def somebody_leads(tier: str, hosts: list[str], answers: dict[str, dict]) -> bool:
    """Return whether a host of a tier has its leader."""
    rows = [row for host in hosts for row in rows_of(tier, host, answers)]
    return any(LEADS & set(row["health"].split(", ")) for row in rows)


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
        elif (
            tier in FAILS_OVER
            and not rows_of(tier, host, answers)
            and not somebody_leads(tier, others, answers)
        ):
            # They may still wait for the one that is lost, and to forget it now would end that.
            problems.append(
                f"{host} is lost, and no other host of tier {tier} leads yet: "
                "that takes up to 30 s, then run this again"
            )
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
