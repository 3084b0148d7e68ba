"""`python -m refapp.worker`: runs jobs, WEB_CONCURRENCY of them at a time, until SIGTERM.

It survives an outage of the database: it starts over as a new worker of the queue then, and what
the old one had in hand is delivered again.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys

import psycopg
from procrastinate import exceptions
from procrastinate.worker import Worker
from psycopg import errors as pg

from . import logs
from .extensions import settings
from .factory import create_app
from .jobs import broker, queue
from .jobs.delivery import Delivery
from .jobs.executor import Executor

log = logging.getLogger("refapp.worker")

POLL = 0.5  # seconds between two looks at an empty queue
HEARTBEAT = 3.0  # seconds
STALLED = 10.0  # seconds without a heartbeat, after which others take a worker's jobs over
SWEEP = 2.0  # seconds between two looks for such jobs
# Ends of a statement that the database and the worker's jobs survive.
BUSY = (pg.QueryCanceled, pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure)
REST = 1.0  # seconds between two tries to reach the database


async def work(app, concurrency, grace, stopping):
    """Be one worker of the queue until `stopping` is set, or the database is lost."""
    worker = Worker(
        app,
        queues=[queue.QUEUE],
        concurrency=concurrency,
        fetch_job_polling_interval=POLL,
        update_heartbeat_interval=HEARTBEAT,
        stalled_worker_timeout=STALLED,
        shutdown_graceful_timeout=grace,
        delete_jobs="always",
        listen_notify=False,
        install_signal_handlers=False,
    )
    app.connector.on_loss = worker.stop
    running = asyncio.create_task(worker.run())
    others = [
        asyncio.create_task(take_over(app)),
        asyncio.create_task(stay_alive(app, worker)),
        asyncio.create_task(stopping.wait()),
    ]
    await asyncio.wait([running, *others], return_when=asyncio.FIRST_COMPLETED)
    worker.stop()
    try:
        await running  # finishes or hands back
    finally:
        for task in others:
            task.cancel()
        for error in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(error, Exception):
                log.warning("worker starts over", extra={"error": cause(error)})


async def stay_alive(app, worker):
    """Send heartbeats while the worker stops, too, which Procrastinate does not."""
    while True:
        await asyncio.sleep(HEARTBEAT)
        if worker.worker_id is not None:
            await app.job_manager.update_heartbeat(worker.worker_id)


async def take_over(app):
    """Deliver again what dead workers had in hand, now and then."""
    while True:
        try:
            for job in await broker.take_over(app, STALLED):
                log.warning("job taken over", extra={"job": job})
        except exceptions.ConnectorException as error:
            if not isinstance(error.__cause__, BUSY):
                raise
            log.warning("no sweep", extra={"error": cause(error)})
        await asyncio.sleep(SWEEP)


def cause(error):
    """Return the name of what Procrastinate's error stands for."""
    return type(error.__cause__ or error).__name__


async def main(config):
    """Work until told to stop."""
    concurrency = int(os.environ.get("WEB_CONCURRENCY") or 2)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    executor = Executor()
    log.info("worker starts", extra={"concurrency": concurrency})
    while not stopping.is_set():
        app, pool = broker.make_app(), broker.make_pool(config, concurrency)
        Delivery(app, executor, config["HOST"])
        try:
            async with pool, app.open_async(pool):
                await work(app, concurrency, config["JOB_GRACE"], stopping)
        except (exceptions.ConnectorException, psycopg.Error) as error:
            log.warning("database lost", extra={"error": cause(error)})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), REST)
    executor.close()
    log.info("worker stopped")


if __name__ == "__main__":
    logs.configure()
    try:
        app = create_app({"DATABASE_POOL": "1"})
    except RuntimeError as error:
        sys.exit(f"refapp.worker: {error}")
    settings.start()
    asyncio.run(main(app.config))
