"""The leader's side: name a moment with the sums of all tables; archive all that was written."""

import time
from contextlib import ExitStack, contextmanager

from facts import TABLES, ScratchError, ask, connect, databases, sums

BUSY = ("55P03", "40P01")  # lock_not_available, deadlock_detected
TRIES = 40


def lock(connections):
    """Keep writers from every table, for a moment; give way rather than let them wait."""
    for connection in connections:
        tables = ", ".join(row[0] for row in ask(connection, TABLES))
        with connection.cursor() as cursor:
            cursor.execute("BEGIN; SET LOCAL lock_timeout = '300ms'")
            if tables:
                cursor.execute(f"LOCK TABLE {tables} IN SHARE MODE")


def unlock(connections):
    """Let the writers go on."""
    for connection in connections:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")


@contextmanager
def still(connections):
    """Hold all writers while the block runs."""
    for attempt in range(1, TRIES + 1):
        try:
            lock(connections)
            break
        except Exception as error:
            unlock(connections)
            if getattr(error, "pgcode", None) not in BUSY:
                raise
            if attempt == TRIES:
                raise ScratchError("no moment without writers was found: try again") from None
            time.sleep(0.25)
    try:
        yield
    finally:
        unlock(connections)


def wait_archived(connection, wal, limit):
    """Wait until the archive has a segment, and all before it; return the seconds."""
    began = time.monotonic()
    while True:
        ((last,),) = ask(connection, "SELECT last_archived_wal FROM pg_stat_archiver")
        taken = time.monotonic() - began
        if last and last[8:24] >= wal[8:24]:
            return taken
        if taken > limit:
            raise ScratchError(
                f"{wal} is not in the archive after {limit} s: look at journalctl -u patroni"
            )
        time.sleep(0.2)


def mark(host, name, limit):
    """Make a restore point; return the tables' sums at it and when the archive had it."""
    folder = host.settings["socket"]
    with ExitStack() as stack:

        def session(database):
            connection = connect(folder, database)
            stack.callback(connection.close)
            return connection

        first = session("postgres")
        names = databases(first)
        reads = {database: session(database) for database in names}
        with still([session(database) for database in names]):
            for connection in reads.values():
                with connection.cursor() as cursor:
                    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")
            point = f"pg_create_restore_point('{name}')"
            ((lsn, wal),) = ask(first, f"SELECT l, pg_walfile_name(l) FROM {point} l")  # noqa: S608
            began = time.monotonic()
        # First this, so that it is timed: no switch is asked for, as none is in a disaster.
        wait_archived(first, wal, limit)
        archived = time.monotonic() - began
        found = {}
        for database, connection in reads.items():
            found |= sums(database, connection)
    return {"name": name, "lsn": lsn, "sums": found, "archived_s": round(archived, 1)}


def flush(host, limit):
    """Archive all that was written until now, and a commit that comes after it."""
    live = connect(host.settings["socket"], "postgres")
    try:
        ((lsn,),) = ask(live, "SELECT pg_logical_emit_message(true, 'evenkeel', 'restore')")
        ((wal,),) = ask(live, f"SELECT pg_walfile_name('{lsn}')")
        ask(live, "SELECT pg_switch_wal()")
        return {"wal": wal, "archived_s": round(wait_archived(live, wal, limit), 1)}
    finally:
        live.close()
