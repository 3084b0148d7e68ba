"""Filters of backups: the point in time that is asked for, and the keys of buckets."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ansible.errors import AnsibleFilterError

TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d(:?\d\d)?|Z)?")


def _parse(to: str) -> datetime:
    if not TIME.fullmatch(to):
        raise ValueError(to)
    fraction = re.search(r"\.(\d+)", to)
    if fraction:  # Python 3.11 takes three digits or six
        to = to.replace(fraction[0], f".{fraction[1]:0<6}")
    time = datetime.fromisoformat(to)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def restore_target(to: str) -> str:
    """Return a time as PostgreSQL and pgBackRest both read it, in UTC; nothing for nothing."""
    if not to:
        return ""
    try:
        time = _parse(to).astimezone(UTC)
    except ValueError:
        raise AnsibleFilterError(
            f'"{to}" is no time: write it like -e to=2026-11-20T12:00:00, which is UTC, '
            "or with an offset, 2026-11-20T14:00:00+02"
        ) from None
    return (
        f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond:06d}"[: 26 if time.microsecond else 19] + "+00"
    )


def restore_problems(target: str, backups: list[dict], now: float) -> list[str]:
    """Say why a restore to `target` (nothing: the latest) can't be done with these backups."""
    if not backups:
        return ["the repository has no backup"]
    if not target:
        return []
    wanted = _parse(target).timestamp()
    if wanted > now:
        return [f"{target} has not come yet"]
    oldest = min(backup["timestamp"]["stop"] for backup in backups)
    if wanted <= oldest:
        when = datetime.fromtimestamp(oldest, UTC)
        return [
            f"{target} is before the end of the oldest backup kept, {when:%Y-%m-%d %H:%M:%S}+00"
        ]
    return []


def newest_backups(backups: list[dict], repositories: list[int]) -> list[str]:
    """Return the label of the newest backup of each repository, or that there is none."""
    newest = {backup["database"]["repo-key"]: backup["label"] for backup in backups}
    return [newest.get(number, f"no backup in repository {number}") for number in repositories]


def bucket_keys(buckets: list[dict], users: list[dict]) -> list[dict]:
    """Return the buckets that have a user, each with the key of one."""
    owners = {user["account"]: user for user in reversed(users)}
    return [
        {
            "bucket": bucket["name"],
            "key": f"{bucket['account']}:{owners[bucket['account']]['name']}",
            "secret": owners[bucket["account"]]["key"],
        }
        for bucket in buckets
        if bucket["account"] in owners
    ]


class FilterModule:
    """Make the filters known to Ansible."""

    def filters(self) -> dict:
        """Name the filters."""
        return {
            "restore_target": restore_target,
            "restore_problems": restore_problems,
            "newest_backups": newest_backups,
            "bucket_keys": bucket_keys,
        }
