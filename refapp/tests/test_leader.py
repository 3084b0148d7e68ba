"""Of several database hosts the one that led last is asked first."""

import contextlib
import socket
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from refapp.db import Database, Leader, Unavailable, make_engine

from refapp import db, silence

TWO = {"host": "a,b", "port": "1,2", "dbname": "x"}


@pytest.fixture
def frozen():
    """A host that accepts connections and never says anything."""
    with contextlib.closing(socket.create_server(("127.0.0.2", 0))) as server:
        yield server.getsockname()


def test_a_frozen_host_costs_a_wait_once(database, frozen):
    url = sa.make_url(database)
    hosts = [f"{frozen[0]}:{frozen[1]}", url.query["host"]]
    url = url.set(query={**url.query, "host": hosts})
    engine = make_engine(url.render_as_string(False), pool_size=3)
    took = []
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            began = time.monotonic()
            connection = stack.enter_context(engine.connect())
            assert connection.scalar(sa.text("SELECT 1")) == 1
            took.append(time.monotonic() - began)
    engine.dispose()
    assert took[0] > 1.5, "the first host was not asked"
    assert max(took[1:]) < 1, took


def test_no_attempt_begins_that_would_outlast_the_balancer(frozen):
    database = Database()
    url = f"postgresql+psycopg://x@{frozen[0]}:{frozen[1]}/x"
    settings = {"DATABASE_URL": url, "DATABASE_POOL": 1, "RELEASE": "x"}
    database.init_app(SimpleNamespace(config=settings, extensions={}))
    began = time.monotonic()
    with pytest.raises(Unavailable):
        database.run(lambda session: session.scalar(sa.text("SELECT 1")))
    assert time.monotonic() - began < 3.5, "the balancer gives up after 4 s"


def test_the_order_of_hosts_and_their_ports():
    leader = Leader(TWO)
    assert leader.arguments() == TWO
    leader._host = "b"
    assert leader.arguments() == TWO | {"host": "b,a", "port": "2,1"}
    one_port = Leader(TWO | {"port": "5432"})
    one_port._host = "b"
    assert one_port.arguments() == TWO | {"host": "b,a", "port": "5432"}
    leader._host = "gone"
    assert leader.arguments() == TWO


def test_a_host_that_fell_silent_is_left_out_and_then_asked_last(monkeypatch):
    leader, alone = Leader(TWO), Leader({"host": "a"})
    leader._host = "a"
    for each in (leader, alone):
        each.lost("a")
    assert leader.arguments() == TWO | {"host": "b", "port": "2"}
    with pytest.raises(silence.SilentError):
        alone.arguments()
    later = time.monotonic() + db.REST
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert leader.arguments() == TWO | {"host": "b,a", "port": "2,1"}
    assert alone.arguments()["host"] == "a"
    leader.found(SimpleNamespace(info=SimpleNamespace(host="a")))
    assert leader.arguments() == TWO, "it leads again"
