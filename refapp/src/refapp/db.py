"""PostgreSQL: an engine a process, short timeouts, and transactions that outlive a failover."""

import threading
import time

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy import exc, orm
from werkzeug.exceptions import ServiceUnavailable

# The balancer gives up on a host after 3 s, so nothing here may take that long: an answer
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
WAIT = 2.0  # seconds that a request waits for a database which is starting or failing over
WAITERS = 8  # threads a worker lets wait so; the others answer 503 at once, /livez stays fast

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
        self._waiters = threading.BoundedSemaphore(WAITERS)
        app.extensions["database"] = self

    @property
    def failing(self):
        """Whether the last attempt found the database away."""
        return self._failing

    def run(self, work, idempotent=False):
        """Return work(session), run in a transaction.

        Repeated, up to WAIT seconds, while the database is away. Once COMMIT was sent its
        outcome may be unknown; then only an idempotent transaction is repeated.
        """
        if not self._failing:
            return self._attempts(work, idempotent)
        if not self._waiters.acquire(blocking=False):
            raise Unavailable
        try:
            return self._attempts(work, idempotent)
        finally:
            self._waiters.release()

    def _attempts(self, work, idempotent):
        deadline = time.monotonic() + WAIT
        pause = 0.05
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
                if not away and not isinstance(error.orig, (*REPEATABLE, *_SLOW)):
                    raise
                self._failing = self._failing or away
                repeat = not isinstance(error.orig, _SLOW) and (idempotent or not committing)
                if not repeat or time.monotonic() + pause > deadline:
                    raise Unavailable from error
            except exc.TimeoutError as error:  # no free connection in the pool
                raise Unavailable("The database is busy.") from error
            time.sleep(pause)
            pause = min(pause * 2, 0.4)


# A statement that hit its limit is not repeated: the load that slowed it would double.
_SLOW = (pg.QueryCanceled, pg.LockNotAvailable)


def _never_connected(error):
    return isinstance(error, exc.OperationalError) and getattr(error.orig, "sqlstate", "") is None


def make_engine(url, application_name="refapp", session=SESSION, **options):
    """Return an engine for an SQLAlchemy URL, or for a libpq one with several hosts."""
    connect = CONNECT | {
        "application_name": application_name,
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
    }
    options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 1.5} | options
    if url.startswith("postgresql+psycopg:"):
        parsed = sa.make_url(url)
        # What the URL says wins over these defaults.
        options["connect_args"] = {k: v for k, v in connect.items() if k not in parsed.query}
        target = parsed
    else:
        given = psycopg.conninfo.conninfo_to_dict(url)
        options["creator"] = lambda: psycopg.connect(**(connect | given))
        target = "postgresql+psycopg://"
    engine = sa.create_engine(target, pool_pre_ping=True, pool_recycle=600, **options)

    @sa.event.listens_for(engine, "handle_error")
    def drop_connection_to_a_lost_primary(context):
        if isinstance(context.original_exception, AWAY):
            context.is_disconnect = True

    return engine
