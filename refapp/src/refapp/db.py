"""PostgreSQL: an engine a process, short timeouts, and transactions that outlive a failover."""

import threading
import time

import psycopg
import sqlalchemy as sa
from flask import g, has_app_context
from psycopg import errors as pg
from sqlalchemy import exc, orm
from werkzeug.exceptions import ServiceUnavailable

from . import silence

# The balancer gives up on a host after 4 s, so nothing here may take that long: an answer
# of 503 in time is better than a retry elsewhere of a request that still runs.
CONNECT = {
    "connect_timeout": 2,
    "target_session_attrs": "read-write",
    "tcp_user_timeout": 2500,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}
# A process that freezes inside a transaction must not keep its locks: the balancer's
# retry of the same Idempotency-Key on another host waits for them.
SESSION = {
    "statement_timeout": 2000,
    "lock_timeout": 1500,
    "idle_in_transaction_session_timeout": 1500,
}
WAIT = 3.5  # seconds that a request waits, in all, for a database which is starting or failing over
# Threads a worker lets wait so; the others of its 32 answer 503 at once, and /livez stays fast.
WAITERS = 24
REST = 1.0  # seconds for which a host that fell silent is not asked

# The server is not there, not yet, not any more, or is now a standby: ask again elsewhere.
AWAY = (
    pg.CannotConnectNow,
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.ReadOnlySqlTransaction,
    pg.IdleInTransactionSessionTimeout,
    pg.TooManyConnections,
)
REPEATABLE = (pg.SerializationFailure, pg.DeadlockDetected)


class Unavailable(ServiceUnavailable):
    """The database can't be used now; a client may repeat the request in a second."""

    description = "The database is not available now."

    def __init__(self, description=None):
        super().__init__(description, retry_after=1)


class TooSlow(Unavailable):
    """A statement ran into its time limit; whoever repeats it for ever never gets further."""


class Database:
    """Engine and transactions, without a connection until the first query."""

    engine = None

    def init_app(self, app):
        """Make the engine; connects nowhere."""
        self.engine = make_engine(
            app.config["DATABASE_URL"],
            application_name=f"refapp {app.config['RELEASE']}",
            pool_size=app.config["DATABASE_POOL"],
        )
        self._session = orm.sessionmaker(self.engine, expire_on_commit=False)
        self._failing = False
        self._places = threading.BoundedSemaphore(WAITERS)
        app.extensions["database"] = self

    @property
    def failing(self):
        """Whether the last attempt found the database away."""
        return self._failing

    def run(self, work, idempotent=False):
        """Return work(session), run in a transaction.

        Repeated while the database is away, for as long as the request may wait. Once COMMIT
        was sent its outcome may be unknown; then only an idempotent transaction is repeated.
        """
        with Patience(self._places) as patience:
            if self._failing:
                patience.take_place()
            while True:
                committing = False
                try:
                    with self._session() as session:
                        result = work(session)
                        committing = True
                        session.commit()
                    self._failing = False
                    return result
                except exc.DBAPIError as error:
                    away = error.connection_invalidated or isinstance(error.orig, AWAY)
                    away = away or _never_connected(error)
                    if not away and not isinstance(error.orig, (*REPEATABLE, *_NOT_NOW)):
                        raise
                    self._failing = self._failing or away
                    if isinstance(error.orig, pg.QueryCanceled):
                        raise TooSlow from error
                    if isinstance(error.orig, _NOT_NOW) or (committing and not idempotent):
                        raise Unavailable from error
                    patience.wait(error)
                except exc.TimeoutError as error:  # no free connection in the pool
                    raise Unavailable("The database is busy.") from error


class Patience:
    """How long a request waits for the database: WAIT for all its transactions together."""

    def __init__(self, places):
        self._places, self._has_place = places, False
        self._began = self._attempt = time.monotonic()
        self._pause = 0.05
        self._waited = g.get("database_waited", 0.0) if has_app_context() else 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._has_place:
            self._places.release()
            if has_app_context():
                g.database_waited = self._waited + time.monotonic() - self._began

    def take_place(self):
        """Take one of the few places to wait in, or raise Unavailable."""
        if not self._has_place:
            self._has_place = self._places.acquire(blocking=False)
            if not self._has_place:
                raise Unavailable

    def wait(self, error):
        """Sleep before another attempt, or raise Unavailable when there is no time for it."""
        self.take_place()
        now = time.monotonic()
        # The next attempt takes as long as the last: two seconds for a host that does not answer.
        if self._waited + now - self._began + self._pause + now - self._attempt > WAIT:
            raise Unavailable from error
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, 0.4)
        self._attempt = time.monotonic()


# Not repeated here. A statement that hit its limit: the load that slowed it would double. A silent
# server: there is no time to find out again. A full disk: somebody has to make room.
_NOT_NOW = (
    pg.QueryCanceled,
    pg.LockNotAvailable,
    silence.SilentError,
    pg.DiskFull,
    pg.OutOfMemory,
)


def _never_connected(error):
    return isinstance(error, exc.OperationalError) and getattr(error.orig, "sqlstate", "") is None


class Leader:
    """Where the leader was found last: it is asked first, so that a lost host costs a wait once."""

    def __init__(self, arguments):
        self._arguments, self._host = arguments, None
        self._silent, self._until = None, 0.0

    def arguments(self):
        """Return psycopg's arguments: the last leader before other hosts, a silent one after them.

        Who has just waited for a silent host has no time to do so again: for a moment it is left
        out, and when there is no other SilentError is raised.
        """
        hosts = str(self._arguments.get("host", "")).split(",")
        ports = str(self._arguments.get("port", "")).split(",")
        resting = self._silent if time.monotonic() < self._until else None
        asked = [n for n, host in enumerate(hosts) if host != resting]
        if not asked:
            raise silence.SilentError(resting)
        asked.sort(key=lambda n: (hosts[n] == self._silent, hosts[n] != self._host))
        if asked == list(range(len(hosts))):
            return self._arguments
        same_port = len(ports) < len(hosts)
        return self._arguments | {
            "host": ",".join(hosts[n] for n in asked),
            "port": ports[0] if same_port else ",".join(ports[n] for n in asked),
        }

    def found(self, connection):
        """Remember where a connection leads, and return it."""
        self._host = connection.info.host
        if self._host == self._silent:
            self._silent = None
        return connection

    def lost(self, host):
        """Remember that a host fell silent."""
        self._silent, self._until = host, time.monotonic() + REST


def make_engine(url, application_name="refapp", session=SESSION, **options):
    """Return an engine for an SQLAlchemy URL, or for a libpq one with several hosts."""
    leader = Leader(connect_arguments(url, application_name, session))
    options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 1.5} | options
    # What may run for longer may be silent for longer.
    kind = silence.Connection if session is SESSION else psycopg.Connection
    options["creator"] = lambda: leader.found(kind.connect(**leader.arguments()))
    # Errors are logged, and values are other people's.
    options["hide_parameters"] = True
    # libpq's form with several hosts is none that SQLAlchemy reads.
    target = url if url.startswith("postgresql+psycopg:") else "postgresql+psycopg://"
    engine = sa.create_engine(target, pool_pre_ping=True, pool_recycle=600, **options)

    @sa.event.listens_for(engine, "handle_error")
    def drop_connection_to_a_lost_primary(context):
        error = context.original_exception
        if isinstance(error, AWAY):
            context.is_disconnect = True
        # Any server that lives answers a ping. Only a COMMIT may wait longer than it may take:
        # for a standby.
        if context.is_pre_ping and isinstance(error, silence.SilentError):
            leader.lost(error.host)

    return engine


def connect_arguments(url, application_name, session=SESSION):
    """Return psycopg's arguments to connect to a URL; what the URL says wins over ours."""
    ours = CONNECT | {
        "application_name": application_name,
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
    }
    if url.startswith("postgresql+psycopg:"):
        parsed = sa.make_url(url)
        return ours | parsed.get_dialect()().create_connect_args(parsed)[1]
    return ours | psycopg.conninfo.conninfo_to_dict(url)
