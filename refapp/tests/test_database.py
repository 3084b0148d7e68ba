"""A database that restarts, that is slow or away, and one of several hosts."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from conftest import build
from refapp.extensions import db
from selling import total
from web import THREADS

from refapp import db as database_module


def test_a_database_restart_costs_waiting_and_no_error(client, postgres, item):
    total(client, item)
    restarted = threading.Timer(1, postgres.start)
    postgres.stop()
    restarted.start()
    started = time.monotonic()
    answer = client.get(f"/sales?idempotency_key={item}")
    restarted.join()
    assert answer.status_code == 200
    assert 0.5 < time.monotonic() - started < 3


def test_lost_connections_are_replaced(client, sql, item):
    for _ in range(3):
        total(client, f"{item}-{_}")
        sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'refapp %%' AND pid <> pg_backend_pid()"
        )


def test_a_slow_statement_is_cut_off(app):
    started = time.monotonic()
    with pytest.raises(database_module.Unavailable):
        db.run(lambda session: session.execute(sa.text("SELECT pg_sleep(5)")))
    assert time.monotonic() - started < 2.7


def test_livez_stays_fast_while_many_wait_for_the_database(lonely):
    def read(_):
        return lonely.test_client().get("/sales/total?item=item-1").status_code

    with ThreadPoolExecutor(THREADS) as pool:
        read(0)
        started = time.monotonic()
        answers = [pool.submit(read, n) for n in range(THREADS)]
        time.sleep(1)
        free = sum(answer.done() for answer in answers)
        assert {answer.result() for answer in answers} == {503}
    assert free >= THREADS - database_module.WAITERS > 4, "threads are left for /livez"
    assert time.monotonic() - started < 4


def test_libpq_urls_with_several_hosts(monkeypatch, environ, database, postgres):
    name = sa.make_url(database).database
    url = f"postgresql://refapp@127.0.0.1:1,127.0.0.1:{postgres.port}/{name}"
    app = build(monkeypatch, environ | {"REFAPP_DATABASE_URL": url})
    assert total(app.test_client(), "item-2")[0] == 1000
    several = f"postgresql+psycopg://refapp@/{name}?host=127.0.0.1:1&host=127.0.0.1:{postgres.port}"
    app = build(monkeypatch, environ | {"REFAPP_DATABASE_URL": several})
    assert total(app.test_client(), "item-3")[0] == 1000
