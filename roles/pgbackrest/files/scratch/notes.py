"""What an operator should know about backups. Asks no repository, so that it takes no time."""

import re
import subprocess
import time
from datetime import UTC, datetime

from facts import Host, ask, connect

PATIENCE = 6 * 3600  # seconds that a backup may take, and its proof
LOOKS = 3 * 3600  # every hour there is a check
SHOWN = "--property=Id,LoadState,ActiveState,SubState"
ELAPSE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$", re.M)
# An archiver that hangs fails nothing, but WAL waits for it.
FAILING = r"""
    SELECT coalesce(to_char(last_archived_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), '')
    FROM pg_stat_archiver
    WHERE last_failed_time > coalesce(last_archived_time, '-infinity') OR EXISTS (
        SELECT FROM pg_ls_archive_statusdir()
        WHERE name ~ '\.ready$' AND modification < now() - interval '15 min'
    )
"""


def day(seconds):
    """Return a time as people read it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def says(*command):
    """Return what a command prints, or nothing when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout if done.returncode == 0 else ""


def due(since, calendars):
    """Return when the first backup after a time should begin, by the timers' calendars."""
    base = f"--base-time={datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    found = []
    for calendar in calendars:  # each apart: one that can't be read must not hide the other
        said = ELAPSE.search(says("systemd-analyze", "calendar", base, calendar))
        if said:
            found.append(datetime.fromisoformat(f"{said[1]}+00:00").timestamp())
    return min(found, default=None)


def failed_units(shown):
    """Name the units that failed, of what systemctl show says of them."""
    units = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in shown.split("\n\n")
    ]
    return [
        unit["Id"].removesuffix(".service")
        for unit in units
        if unit.get("LoadState") == "loaded"
        and (unit["ActiveState"] == "failed" or "auto-restart" in unit["SubState"])
    ]


def archiving(host):
    """Say whether the leader's WAL fails to reach the archive."""
    connection = connect(host.settings["socket"], "postgres")
    try:
        failing = ask(connection, FAILING)
    finally:
        connection.close()
    return [
        f"WAL does not reach the archive{f' since {last} UTC' if last else ''}: "
        "journalctl -u patroni says why"
        for (last,) in failing
    ]


def kept(host, now):
    """Say what is wrong with a repository, as the checks of this host saw it."""
    number = host.repository
    newest = host.kept("seen")
    looked = host.state("seen").stat().st_mtime if newest else 0
    if now - looked > LOOKS:
        last = f"last looked at {day(looked)}" if looked else "not looked at yet"
        return [
            f"repository {number} {last}: pgbackrest-check@{number}.timer does so every hour, "
            "playbooks/backup.yml now"
        ]
    if not newest["backup"]:
        return [f"repository {number} has no backup: playbooks/backup.yml takes one"]
    proven = host.kept("checked").get("backup")
    late, found = due(newest["stop"], host.settings["calendars"]), []
    if late and now - late > PATIENCE:
        found.append(
            f"repository {number} has no backup since {day(newest['stop'])}: journalctl -u "
            "'pgbackrest-*' on the leader says why, playbooks/backup.yml takes one"
        )
    if proven != newest["backup"] and now - newest["stop"] > PATIENCE:
        found.append(
            f"{newest['backup']} is not proved: journalctl -u pgbackrest-check@{number} says why"
        )
    if newest.get("gap"):
        found.append(
            f"repository {number} lacks WAL from {newest['gap']} on, where a restore would end "
            "until there is a new backup: playbooks/backup.yml takes one"
        )
    return found


def notes(host):
    """Return a line for each thing that an operator should know; none when all is well."""
    shown = says("systemctl", "show", SHOWN, "pgbackrest-*.service")
    found = [f"{unit} failed: journalctl -u {unit}" for unit in failed_units(shown)]
    if host.rest("/primary")[0] == 200:
        found += archiving(host)
    if host.checks():
        for number in host.settings["repositories"]:
            found += kept(Host(host.settings, number), time.time())
    return found
