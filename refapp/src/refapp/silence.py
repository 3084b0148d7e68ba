"""A database that falls silent is given up.

A host that is frozen, or cut off, leaves its connections standing: the kernel of a frozen one even
goes on acknowledging what it is sent. Only a clock of our own ends the wait.

Not for connections without a statement_timeout: theirs may well work, or wait for a lock, longer.
"""

import functools
import time

import psycopg
from psycopg.waiting import Ready

# Seconds without a byte from the server. After its statement_timeout (db.py) one that lives
# answers, whatever it is doing.
LIMIT = 2.5


class SilentError(psycopg.OperationalError):
    """The server said nothing for too long; the connection is closed."""

    def __init__(self, host):
        super().__init__("the server fell silent")
        self.host = host


def bounded(wait):
    """Make a connection's wait() raise SilentError instead of waiting for a silent server."""

    @functools.wraps(wait)
    def bounded_wait(connection, steps, *args, **options):
        return wait(connection, listen(connection, steps), *args, **options)

    return bounded_wait


def listen(connection, steps):
    """Pass on what psycopg's steps wait for, and what became ready, until they are done."""
    heard = time.monotonic()
    try:
        wanted = next(steps)
        while True:
            # psycopg comes back ten times a second, even if nothing is ready.
            ready = yield wanted
            if ready and ready & Ready.R:
                heard = time.monotonic()
            elif time.monotonic() - heard > LIMIT:
                error = SilentError(connection.info.host)
                connection.pgconn.finish()
                raise error
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value


class Connection(psycopg.Connection):
    """A connection of a thread."""

    wait = bounded(psycopg.Connection.wait)


class AsyncConnection(psycopg.AsyncConnection):
    """A connection of an event loop."""

    wait = bounded(psycopg.AsyncConnection.wait)
