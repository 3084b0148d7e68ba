"""`python -m refapp.migrate`: the expand phase of a deploy; safe to repeat, and twice at once.

Migrations run under the release that serves now, so each must leave it working: add tables,
columns that are nullable or have a default, indexes; drop a thing one release after its last use.
"""

import logging
import os
import sys
import time

import sqlalchemy as sa
from alembic import command
from psycopg import errors as pg

from . import config as settings
from . import logs, seeds
from .db import make_engine
from .schema import alembic_config

log = logging.getLogger("refapp.migrate")

LOCK = 0x5EFA  # any number, the same in every release
PATIENCE = 120  # seconds for another migration to end, or for the database to come up
# Whoever needs a busy table queues behind a migration that waits for it, and requests give up
# after 1.5 s (db.py). But an autovacuum gives way only to who waits for 1 s (deadlock_timeout).
SESSION = {"lock_timeout": 1200, "statement_timeout": 0}


def main():
    """Upgrade the schema, then seed what has never been seeded."""
    logs.configure()
    config = settings.load()
    admin_password = os.environ.get("REFAPP_ADMIN_PASSWORD")
    if not admin_password:
        raise RuntimeError("REFAPP_ADMIN_PASSWORD is not set")
    engine = make_engine(config["DATABASE_URL"], "refapp migrate", SESSION)
    with connect(engine) as connection:
        lock(connection)
        upgrade(connection)
        seeds.run(connection, admin_password)
    # The connection's end frees the lock, however this ends.
    engine.dispose()


def connect(engine):
    """Return a connection, waiting for a database that is still starting."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return engine.connect()
        except sa.exc.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.info("waiting for the database", extra={"error": type(error.orig).__name__})
            time.sleep(1)


def lock(connection):
    """Take the lock that only one migration of the fleet can hold."""
    deadline = time.monotonic() + PATIENCE
    while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(LOCK))):
        connection.rollback()
        if time.monotonic() > deadline:
            raise RuntimeError(f"another migration has held the lock for {PATIENCE} s")
        log.info("waiting for another migration")
        time.sleep(0.5)
    connection.commit()


def upgrade(connection):
    """Run the migrations that this database has not seen, each in a transaction of its own."""
    config = alembic_config()
    config.attributes["connection"] = connection
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            command.upgrade(config, "head")
            connection.commit()
            break
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, pg.LockNotAvailable) or time.monotonic() > deadline:
                raise
            connection.rollback()
            log.info("waiting for a busy table")
            time.sleep(1)  # what queued behind us goes first
    log.info("schema is up to date")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"refapp.migrate: {error}")
