"""The scratch cluster: restored beside the real one, without network; read, promoted or dropped."""

import fcntl
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from facts import KNOWN, NOBODY, ScratchError, ask, connect, databases, run, sums

# What a cluster in recovery must have no less of than its primary had; and pg_controldata's word.
LIMITS = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_transactions": "max_prepared_xacts",
    "max_locks_per_transaction": "max_locks_per_xact",
}
# What pgBackRest wrote for this recovery: a standby made of this cluster must not stop there, too.
RECOVERY = [
    "restore_command",
    *("recovery_target" + part for part in ("", "_name", "_time", "_action", "_timeline")),
]
PAUSED = "pausing at the end of recovery"
WAITING = "waiting for WAL to become available"
SETTLED = 3  # seconds without anything new; the archive is asked every second


def taken(root):
    """Return the bytes that a directory takes; what vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


class Scratch:
    """The scratch cluster of a host."""

    def __init__(self, host):
        self.host = host
        self.root = Path(host.settings["scratch"])
        self.data, self.log = self.root / "data", self.root / "log"
        self.locked = None

    def lock(self, wait):
        """Keep other calls from the scratch directory until this process ends."""
        self.locked = self.root.with_name(f"{self.root.name}.lock").open("w")
        try:
            fcntl.flock(self.locked, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def restore(self, kind, target=None, timeline=None, backup=None):
        """Restore, and replay to the target without promoting; latest goes on replaying."""
        backups = self.host.backups()
        if not backups:
            raise ScratchError("the repository has no backup: run playbooks/backup.yml")
        self.drop()
        self.root.mkdir(mode=0o700)
        self.room(backups[-1]["info"]["size"])
        words = (
            ["--type=standby"] if kind == "latest" else [f"--type={kind}", "--target-action=pause"]
        )
        words += [f"--repo={self.host.repository}"]  # the WAL comes from there, too
        words += [f"--target={target}"] if target else []
        words += [f"--target-timeline={timeline}"] if timeline else []
        words += [f"--set={backup}"] if backup else []
        if kind == "immediate":  # the backup's own timeline, whatever became of it later
            words += ["--recovery-option=recovery_target_timeline=current"]
        began = time.monotonic()
        said = run(*self.host.pgbackrest, f"--pg1-path={self.data}", "--log-level-console=info",
                   *words, "restore")  # fmt: skip
        restored = time.monotonic()
        self.start()
        self.wait(self.follows if kind == "latest" else self.paused)
        lsn, commit = self.replayed()
        return {
            "backup": next(iter(re.findall(r"restore backup set ([\w-]+)", said)), "unknown"),
            "restored_s": round(restored - began, 1),
            "replayed_s": round(time.monotonic() - restored, 1),
            "lsn": lsn,
            "last_commit": commit,
        }

    def room(self, size):
        """Refuse what would fill the disk."""
        free = shutil.disk_usage(self.root).free
        if size * 1.2 > free:
            raise ScratchError(
                f"{self.root} has {free >> 20} MB free, the backup needs {int(size * 1.2) >> 20}: "
                "make room, or set pgbackrest_scratch to a directory of a larger disk"
            )

    def fits(self, place, keep, unended=False):
        """Refuse what a cluster's disk has no room for; a rename on one disk needs none."""
        place = Path(place)
        if self.data.stat().st_dev == place.parent.stat().st_dev:
            return {"copied": False}
        goes = ([] if unended else [place.with_name(f"{place.name}.replaced")]) + (
            [] if keep else [place]
        )
        room = shutil.disk_usage(place.parent).free + sum(taken(path) for path in goes)
        need = int(taken(self.data) * 1.1)
        if need > room:
            self.drop()
            raise ScratchError(
                f"{self.data} is on another disk than {place}, where {need >> 20} MB are "
                f"needed and {room >> 20} are to be had: make room"
                + (", or add -e keep=false" if keep else "")
            )
        return {"copied": True}

    def describe(self):
        """Tell repositories that know no cluster of this one, so that its WAL can enter them."""
        repositories = self.host.info()["repo"]
        dumb = [str(repo["key"]) for repo in repositories if repo["status"]["code"] not in KNOWN]
        if dumb:
            self.drop()
            raise ScratchError(
                f"repository {', '.join(dumb)} can't be read: what is restored archives into every "
                "repository. Bring it back, empty if need be, or take it from pgbackrest_options"
            )
        new = [repo["key"] for repo in repositories if repo["status"]["code"] in NOBODY]
        if new:
            run(*self.host.pgbackrest, f"--pg1-path={self.data}", "--no-online", "stanza-create")
        return {"new": new}

    def start(self):
        """Start it in recovery, with the settings that came with the backup but for these."""
        control = run(f"{self.host.settings['bin']}/pg_controldata", str(self.data))
        push = " ".join([*self.host.pgbackrest, f"--pg1-path={self.data}", "archive-push %p"])
        (self.root / "hba").write_text("local all postgres peer\n")
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.root,
            "hba_file": self.root / "hba",
            "shared_buffers": "128MB",
            "synchronous_standby_names": "",
            "primary_conninfo": "",
            "primary_slot_name": "",
            "logging_collector": "off",
            "wal_retrieve_retry_interval": "1s",
            "lc_messages": "C",  # read below
            "hot_standby": "on",
            "archive_mode": "on",  # in recovery nothing is archived; what is promoted must be
            "archive_command": push,
        } | {
            name: re.search(rf"^{word} setting: +(\d+)", control, re.M)[1]
            for name, word in LIMITS.items()
        }
        words = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        self.pg_ctl("start", "-W", "-l", str(self.log), "-o", words)

    def pg_ctl(self, *words):
        """Call pg_ctl; the server's output goes to its log, not into a pipe of ours."""
        command = [f"{self.host.settings['bin']}/pg_ctl", "-s", "-D", str(self.data), *words]
        with self.log.open("a") as log:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode:
            raise ScratchError(f"pg_ctl {words[0]}: {self.said()[-900:]}")

    def said(self):
        """Return the server's log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def runs(self):
        """Say whether the server runs."""
        status = [f"{self.host.settings['bin']}/pg_ctl", "-D", str(self.data), "status"]
        return subprocess.run(status, capture_output=True).returncode == 0

    def wait(self, check):
        """Wait until a check is true; however long, unless the server ends."""
        time.sleep(0.5)
        while not check():
            if not self.runs():
                raise ScratchError(f"the recovery failed: {self.said()[-900:]}")
            if "insufficient parameter settings" in self.said():
                raise ScratchError(f"the recovery can't go on: {self.said()[-900:]}")
            time.sleep(0.2)

    def query(self, query, database="postgres"):
        """Return the rows of a query, or none while the server does not answer."""
        try:
            connection = connect(self.root, database)
        except Exception as error:
            if type(error).__name__ == "OperationalError" and "authentication" not in str(error):
                return []
            raise
        try:
            return ask(connection, query)
        finally:
            connection.close()

    def replayed(self):
        """Return how far the recovery came: the position, and the time of the last commit."""
        query = "SELECT pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp()::text"
        return next(iter(self.query(query)), ("0/0", None))

    def paused(self):
        """Say whether the target is reached, and the server can be asked."""
        return PAUSED in self.said() and self.query("SELECT 1")

    def follows(self):
        """Say whether all of the archive is replayed, and nothing new comes."""
        before = len(self.said())
        time.sleep(SETTLED)
        since = self.said()[before:]
        # A store that does not answer must not look like the end of the archive.
        more = any(word in since for word in ("restored log file", "ERROR: ["))
        return WAITING in since and not more and self.query("SELECT 1")

    def sums(self):
        """Return rows and checksum of each table."""
        first = connect(self.root, "postgres")
        found = {}
        for database in databases(first):
            found |= sums(database, connect(self.root, database))
        return found

    def promote(self):
        """Make it a cluster of its own: a timeline, known to the archive, and no recovery left."""
        paused = PAUSED in self.said()
        if not paused:  # the latest: what the cluster archived when it stopped comes, too
            self.wait(self.follows)
        self.query("SELECT pg_wal_replay_resume()" if paused else "SELECT pg_promote(false)")
        self.wait(lambda: self.query("SELECT 1 WHERE NOT pg_is_in_recovery()"))
        # A commit after the target: who repeats this restore follows the new timeline, and would
        # find its end in place of the target.
        self.query("SELECT pg_logical_emit_message(true, 'evenkeel', 'restored')")
        for name in RECOVERY:
            connection = connect(self.root, "postgres")
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER SYSTEM RESET {name}")
            connection.close()
        waiting = self.data / "pg_wal/archive_status"
        self.wait(lambda: not list(waiting.glob("*.ready")))
        ((wal,),) = self.query("SELECT pg_walfile_name(pg_current_wal_lsn())")
        self.pg_ctl("stop", "-w", "-m", "fast", "-t", "600")
        return {"timeline": int(wal[:8], 16)}

    def drop(self):
        """Stop it and remove it."""
        if self.data.exists() and self.runs():
            self.pg_ctl("stop", "-w", "-m", "immediate")
        shutil.rmtree(self.root, ignore_errors=True)

    def check(self):
        """Prove the newest backup, once: restore it, read every row, verify every page."""
        backups = self.host.backups()
        newest = backups[-1]["label"] if backups else None
        stop = backups[-1]["timestamp"]["stop"] if backups else None
        gap = self.host.gap(backups[-1]) if backups else None
        self.host.keep("seen", {"backup": newest, "stop": stop, "gap": gap})
        done = self.host.kept("checked")
        if newest is None or done.get("backup") == newest:
            return done
        if backups[-1].get("error"):
            raise ScratchError(f"{newest} holds damaged pages: pgbackrest info --set={newest}")
        if not self.lock(wait=False) or self.runs():
            raise ScratchError(f"a restore is under way in {self.root}: {newest} is checked later")
        began = time.monotonic()
        try:
            found = self.restore("immediate", backup=newest)
            tables = self.sums()
            self.pg_ctl("stop", "-w", "-m", "fast")
            run(f"{self.host.settings['bin']}/pg_checksums", "--check", "-D", str(self.data))
        finally:
            self.drop()
        done = {
            "backup": newest,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "tables": len(tables),
            "rows": sum(int(text.split()[0]) for text in tables.values()),
            "restored_s": found["restored_s"],
            "checked_s": round(time.monotonic() - began, 1),
        }
        self.host.keep("checked", done)
        return done
