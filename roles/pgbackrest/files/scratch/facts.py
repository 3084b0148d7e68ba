"""What both sides need: settings, commands, SQL, Patroni, and what the repository holds."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

SETTINGS = Path("/etc/pgbackrest-scratch.json")
LEADERS = ("leader", "master")
PART = re.compile("[0-9A-F]{16}")  # a directory of an archive
SEGMENT = re.compile(r"[0-9A-F]{24}-")  # a whole one, as the archive names it
KNOWN = (0, 1, 2, 3)  # ok, and three ways of being empty
NOBODY = (1, 3)  # a repository that knows no cluster
TABLES = """
    SELECT format('%I.%I', nspname, relname)
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND relpersistence = 'p'
    AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1
"""
# The text of a row must not depend on the settings of a cluster.
PLAIN = """
    SELECT set_config(name, value, false) FROM (VALUES ('timezone', 'UTC'), ('datestyle', 'ISO'),
    ('bytea_output', 'hex'), ('extra_float_digits', '1')) s(name, value)
"""


class ScratchError(Exception):
    """What the operator can act on."""


def chosen(members):
    """Name the member that checks backups: a replica that follows, else the leader."""
    replicas = sorted(
        m["name"]
        for m in members
        if m["role"] not in LEADERS and m["state"] in ("streaming", "running")
    )
    leaders = [m["name"] for m in members if m["role"] in LEADERS]
    return (replicas or leaders or [None])[0]


def differences(wanted, found):
    """Return a line for each table whose rows are not the same."""
    return [
        f"{table}: {wanted.get(table, 'missing')}; restored: {found.get(table, 'missing')}"
        for table in sorted(wanted.keys() | found.keys())
        if wanted.get(table) != found.get(table)
    ]


def gap(names, start):
    """Name the first segment after `start` that an archive lacks, though it has later ones.

    Whatever the timeline: a new one begins with the segment that the old one did not finish.
    """

    def number(name):
        return int(name[8:16], 16) * 256 + int(name[16:24], 16)

    have = {number(name) for name in names if SEGMENT.match(name) and name[:8] >= start[:8]}
    lacks = next((n for n in range(number(start), max(have, default=0)) if n not in have), None)
    return None if lacks is None else f"{start[:8]}{lacks >> 8:08X}{lacks & 255:08X}"


def held(stanza):
    """Return the backups of what pgBackRest's info says, which fails with exit code 0."""
    if stanza["status"]["code"] not in KNOWN:
        reasons = [repo["status"]["message"] for repo in stanza.get("repo", [])]
        raise ScratchError(f"the repository can't be read: {'; '.join(reasons)}")
    return stanza.get("backup", [])


def run(*command):
    """Return what a command prints; raise with its last words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip())[-900:]
        raise ScratchError(f"{Path(command[0]).name}: {words}")
    return done.stdout


def connect(folder, database):
    """Return a connection as the superuser, over the socket in a directory."""
    import psycopg2  # here, because tests of the functions above have none

    connection = psycopg2.connect(host=str(folder), dbname=database, connect_timeout=20)
    connection.autocommit = True
    return connection


def ask(connection, query):
    """Return the rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def databases(connection):
    """Name the databases that hold data."""
    names = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
    return [row[0] for row in ask(connection, names)]


def sums(database, connection):
    """Return rows and checksum of each table; the order of rows makes no difference."""
    ask(connection, PLAIN)
    found = {}
    for (table,) in ask(connection, TABLES):
        ((rows, total),) = ask(
            connection,
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) "  # noqa: S608
            f"FROM ONLY {table} t",
        )
        found[f"{database}/{table}"] = f"{rows} rows, checksum {total}"
    return found


class Host:
    """This host: its settings, its Patroni, the repository that it sees."""

    def __init__(self, settings, repository=1):
        self.settings, self.repository = settings, repository
        self.pgbackrest = ["pgbackrest", f"--stanza={settings['stanza']}"]

    def rest(self, path, base=None):
        """Ask Patroni, this member's or another; return the status and the answer."""
        url = (base or self.settings["rest"]) + path
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {}
        except OSError as error:
            raise ScratchError(f"Patroni does not answer: {error}") from None

    def members(self):
        """Return the cluster's members, as etcd has them."""
        return self.rest("/cluster")[1].get("members", [])

    def led(self):
        """Say whether another member leads, by its own word: etcd's may be of one that is lost."""
        for member in self.members():
            if member["role"] in LEADERS and member["name"] != self.settings["member"]:
                with suppress(ScratchError):
                    base = member["api_url"].removesuffix("/patroni")
                    return self.rest("/primary", base)[0] == 200
        return False

    def leads(self, patience=60):
        """Say whether this member is the leader; in a failover wait until some member is."""
        end = time.monotonic() + patience
        while self.rest("/primary")[0] != 200:
            if self.led():
                return False
            if time.monotonic() > end:
                raise ScratchError(f"no member has led for {patience} s")
            time.sleep(1)
        return True

    def checks(self):
        """Say whether this member is the one that checks backups."""
        return chosen(self.members()) == self.settings["member"]

    def backups(self):
        """Return the backups of the repository, oldest first."""
        return held(self.info(f"--repo={self.repository}"))

    def gap(self, backup):
        """Name the first segment after a backup began that the repository lacks, if one does."""
        archives = self.info(f"--repo={self.repository}")["archive"]
        found = [a["id"] for a in archives if a["database"] == backup["database"]]
        if not found:
            return None
        folder, start = f"archive/{self.settings['stanza']}/{found[0]}", backup["archive"]["start"]
        listed = [*self.pgbackrest, f"--repo={self.repository}", "repo-ls"]
        parts = [p for p in run(*listed, folder).split() if PART.fullmatch(p) and p >= start[:16]]
        # The last first: what comes meanwhile must not look as if it had come before the others.
        newest = sorted(parts, reverse=True)
        return gap([n for part in newest for n in run(*listed, f"{folder}/{part}").split()], start)

    def info(self, *words):
        """Return what pgBackRest knows of the stanza; it asks every repository, or one."""
        return json.loads(run(*self.pgbackrest, *words, "--output=json", "info"))[0]

    def state(self, kind):
        """Name the file of this repository that keeps what a check saw, or what it proved."""
        root = Path(self.settings["scratch"])
        return root.with_name(f"{root.name}-{kind}-{self.repository}.json")

    def keep(self, kind, what):
        """Write what `kept` returns, all or nothing: a full disk leaves half of a file."""
        path = self.state(kind)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(what))
        new.replace(path)

    def kept(self, kind):
        """Return what a check of this host saw or proved, nothing where there was none."""
        with suppress(FileNotFoundError, ValueError):
            return json.loads(self.state(kind).read_text())
        return {}
