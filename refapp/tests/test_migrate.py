"""Migrations run once, whoever starts them; older and newer releases agree on readiness."""

import time
from importlib.resources import files

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from conftest import ADMIN_PASSWORD, ROOT, make_database, make_environ, migrate
from refapp.db import make_engine
from refapp.models import Base

from refapp import schema


@pytest.fixture
def fresh(postgres):
    """An engine for an empty database."""
    url = make_database(postgres)
    engine = make_engine(url)
    yield engine
    engine.dispose()


def environ_of(engine, **changes):
    return make_environ(REFAPP_DATABASE_URL=engine.url.render_as_string(False), **changes)


def test_several_at_once_migrate_and_seed_once(fresh):
    processes = [migrate(environ_of(fresh)) for _ in range(3)]
    outputs = [process.communicate(timeout=90)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sum("sales seeded" in output for output in outputs) == 1
    assert not any(ADMIN_PASSWORD in output or "hidden" in output for output in outputs)
    with fresh.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM sales")) == 100_000
        assert connection.scalar(sa.text("SELECT sum(amount) FROM sales")) == 500_050_000
        assert connection.scalar(sa.text("SELECT count(*) FROM users")) == 1


def ours(_, name, kind, *__):
    """Whether the models describe it: no code reads `seeds`, and the queue is Procrastinate's."""
    return not (kind == "table" and (name == "seeds" or name.startswith("procrastinate_")))


def test_the_queue_has_the_schema_of_the_procrastinate_that_is_installed():
    """A newer one may bring changes: they need a migration, and then this compares with theirs."""
    installed = files("procrastinate").joinpath("sql/schema.sql").read_text()
    assert (ROOT / "migrations/sql/procrastinate-3.10.sql").read_text() == installed


def test_the_models_are_what_the_migrations_make(database):
    engine = make_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours})
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []


def test_a_process_is_not_ready_before_its_migrations(fresh):
    with pytest.raises(schema.NotMigratedError):
        schema.check(fresh)


def test_an_older_release_stays_ready_after_a_newer_one_migrated(fresh, monkeypatch):
    with fresh.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num text)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('0001')"))
    monkeypatch.setattr(schema, "revisions", lambda: ["0002", "0001"])
    with pytest.raises(schema.NotMigratedError):
        schema.check(fresh)
    monkeypatch.setattr(schema, "revisions", lambda: ["0000"])
    schema.check(fresh)


def migrate_to(engine, revision):
    config = schema.alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def test_a_migration_that_waits_for_a_busy_table_lets_requests_through(fresh, postgres):
    """Who needs the table queues behind it, and gives up after 1.5 s."""
    migrate_to(fresh, "0003")
    url = f"host=127.0.0.1 port={postgres.port} user=refapp dbname={fresh.url.database}"
    with psycopg.connect(url) as busy:
        busy.execute("SELECT FROM logins")
        process = migrate(environ_of(fresh))
        until = time.monotonic() + 8
        while process.poll() is None:
            with fresh.connect() as connection:  # as requests do; it raises what they would meet
                connection.execute(sa.text("SELECT FROM logins"))
            if time.monotonic() > until:
                busy.rollback()
            time.sleep(0.05)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "waiting for a busy table" in output
    schema.check(fresh)


def test_what_an_interrupted_migration_left_of_an_index_is_replaced(fresh):
    migrate_to(fresh, "0005")
    with fresh.begin() as connection:
        connection.execute(sa.text("CREATE INDEX jobs_kind_finished_at ON jobs (kind)"))
    migrate_to(fresh, "0006")
    with fresh.connect() as connection:
        index = "SELECT pg_get_indexdef('jobs_kind_finished_at'::regclass)"
        assert "(kind, finished_at)" in connection.scalar(sa.text(index))


def test_refuses_without_the_admins_password(fresh):
    environ = environ_of(fresh)
    del environ["REFAPP_ADMIN_PASSWORD"]
    process = migrate(environ)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output.strip() == "refapp.migrate: REFAPP_ADMIN_PASSWORD is not set"


def test_a_failed_seed_leaves_nothing_half_done(fresh, postgres):
    """The seed's mark commits with its rows: what failed is seeded by the next migration."""
    url = f"host=127.0.0.1 port={postgres.port} user=refapp dbname={fresh.url.database}"
    assert migrate(environ_of(fresh)).wait(60) == 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE sales; DELETE FROM seeds")
        connection.execute("ALTER TABLE sales ADD CONSTRAINT broken CHECK (amount < 5000)")
        assert migrate(environ_of(fresh)).wait(60) == 1
        assert connection.execute("SELECT count(*) FROM seeds").fetchone() == (0,)
        connection.execute("ALTER TABLE sales DROP CONSTRAINT broken")
        assert migrate(environ_of(fresh)).wait(60) == 0
        assert connection.execute("SELECT count(*) FROM sales").fetchone() == (100_000,)
