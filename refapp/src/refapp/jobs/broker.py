"""The queue as workers see it, on asynchronous connections of its own."""

import procrastinate
import psycopg
import psycopg_pool
from procrastinate import exceptions

from .. import silence
from ..db import Leader, connect_arguments

# A new entry for each lost one, instead of the same again: should the worker that had it come
# back, it finds that the entry it wants to settle is gone.
TAKE_OVER = """
WITH lost AS (
    DELETE FROM procrastinate_jobs AS entry
    WHERE status = 'doing' AND NOT EXISTS (
        SELECT FROM procrastinate_workers AS worker
        WHERE worker.id = entry.worker_id
          AND last_heartbeat > now() - make_interval(secs => %(stalled)s))
    RETURNING entry.*
), again AS MATERIALIZED (
    SELECT id AS old, (procrastinate_defer_jobs_v1(ARRAY[ROW(
        queue_name, task_name, priority, lock, queueing_lock, args, NULL
    )::procrastinate_job_to_defer_v1]))[1] AS new
    FROM lost
)
UPDATE jobs
SET delivery = again.new, state = CASE state WHEN 'running' THEN 'queued' ELSE state END
FROM again
WHERE jobs.delivery = again.old
RETURNING jobs.id::text AS job
"""


class Connector(procrastinate.PsycopgConnector):
    """Says when the queue could not be told of a job's end: nobody else would notice."""

    on_loss = staticmethod(lambda: None)

    async def execute_query_async(self, query, **arguments):
        """Execute a query without an answer."""
        try:
            await super().execute_query_async(query, **arguments)
        except exceptions.ConnectorException as error:
            if isinstance(error.__cause__, psycopg.OperationalError):
                self.on_loss()
            raise


def make_app():
    """Return Procrastinate's application, to be opened with a pool."""
    return procrastinate.App(connector=Connector())


def connection_class(arguments):
    """Return a class of connections that ask the last leader first."""
    leader = Leader(arguments)

    class Connection(silence.AsyncConnection):
        @classmethod
        async def connect(cls, conninfo="", **_):
            return leader.found(await super().connect(conninfo, **leader.arguments()))

    return Connection


def make_pool(config, concurrency):
    """Return a pool of connections, not open yet; who finds none waits for 5 s."""
    name = f"refapp {config['RELEASE']} worker"
    return psycopg_pool.AsyncConnectionPool(
        connection_class=connection_class(connect_arguments(config["DATABASE_URL"], name)),
        min_size=1,
        max_size=concurrency + 2,
        timeout=5,
        reconnect_timeout=5,
        check=psycopg_pool.AsyncConnectionPool.check_connection,
        open=False,
    )


async def take_over(app, stalled):
    """Deliver again what workers had in hand that sent no heartbeat for so many seconds."""
    rows = await app.connector.execute_query_all_async(TAKE_OVER, stalled=stalled)
    return [row["job"] for row in rows]
