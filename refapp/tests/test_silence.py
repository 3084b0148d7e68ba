"""A database whose host is frozen: connections stand, and no answer comes."""

import contextlib
import time
from types import SimpleNamespace

import pytest
import services
import sqlalchemy as sa
from refapp.db import REST, Database, Unavailable, make_engine
from workers import eventually

PORT = sa.text("SELECT inet_server_port()")
BALANCER = 4  # seconds after which it gives up


@pytest.fixture(scope="module")
def server(directory):
    """A server that this module alone freezes."""
    server = services.Postgres(directory / "silent")
    server.start()
    yield server
    server.stop()


@contextlib.contextmanager
def frozen(server):
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@pytest.fixture
def connect():
    """Return the database of an application, with an idle connection to the first host."""
    databases = []

    def connect(*hosts):
        url = f"postgresql+psycopg://refapp@/postgres?{'&'.join(f'host={host}' for host in hosts)}"
        config = {"DATABASE_URL": url, "DATABASE_POOL": 2, "RELEASE": "x"}
        databases.append(Database())
        databases[-1].init_app(SimpleNamespace(config=config, extensions={}))
        assert ask(databases[-1]) == int(hosts[0].split(":")[1])
        return databases[-1]

    yield connect
    for database in databases:
        database.engine.dispose()


def ask(database):
    return database.run(lambda session: session.scalar(PORT), idempotent=True)


def test_who_asks_is_answered_in_time(server, connect):
    database = connect(f"127.0.0.1:{server.port}")
    with frozen(server):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            ask(database)
        assert time.monotonic() - began < BALANCER
        assert database.failing
        # Nobody else waits for it at once, and so who asks now has the answer now.
        began = time.monotonic()
        with pytest.raises(Unavailable):
            ask(database)
        assert time.monotonic() - began < 0.5
    time.sleep(REST)
    assert ask(database) == server.port
    assert not database.failing


def test_who_has_begun_is_answered_in_time(server, connect):
    database = connect(f"127.0.0.1:{server.port}")

    def work(session):
        session.scalar(PORT)
        stack.enter_context(frozen(server))
        session.scalar(PORT)

    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            database.run(work, idempotent=True)
        assert 2 < time.monotonic() - began < BALANCER
    assert ask(database) == server.port


def test_another_that_leads_by_now_answers_the_same_request(server, postgres, connect):
    database = connect(f"127.0.0.1:{server.port}", f"localhost:{postgres.port}")
    with frozen(server):
        began = time.monotonic()
        assert ask(database) == postgres.port
        assert time.monotonic() - began < BALANCER
        began = time.monotonic()
        assert ask(database) == postgres.port
        assert time.monotonic() - began < 1, "it waited for the silent one again"


def test_work_without_a_limit_may_be_silent_for_longer(server):
    """A migration may run, or wait for a lock, as long as it takes."""
    url = f"postgresql+psycopg://refapp@/postgres?host=127.0.0.1:{server.port}"
    engine = make_engine(url, "refapp migrate", {"statement_timeout": 0})
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1 FROM pg_sleep(3.2)")) == 1
    engine.dispose()


def test_a_worker_gives_it_up_and_comes_back(work, submit, until, postgres):
    worker = work()
    until("done", submit())
    with frozen(postgres):
        eventually(lambda: worker.said("database lost"), 20)
    until("done", submit())
