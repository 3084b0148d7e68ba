"""The users' count costs one query in ten seconds, however many processes are asked."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from services import PASSWORD, send

from refapp import headcount, presence


@pytest.fixture(autouse=True)
def _unknown(redis_server):
    headcount.figure.__init__()
    with redis.Redis(port=redis_server.port, password=PASSWORD) as client:
        client.delete(headcount.FIGURE, headcount.LOCK, presence.ONLINE)
        yield


@pytest.fixture
def queries(sql):
    """Return how many queries the database has had, by its own count."""
    sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    sql("SELECT pg_stat_statements_reset()")

    def count():
        [(found,)] = sql(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s "
            "JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database() "
            "WHERE query LIKE 'SELECT count(*)%%FROM users'"
        )
        return int(found)

    return count


def test_registered_and_online(client, sql):
    [(registered,)] = sql("SELECT count(id) FROM users")
    answer = client.get("/users/count")
    assert answer.status_code == 200
    assert (answer.json["registered"], answer.json["online"]) == (registered, 0)
    assert answer.headers["Cache-Control"] == "no-store"
    presence.report({"one", "two"})
    presence.report({"two"})
    assert client.get("/users/count").json["online"] == 2


def test_who_is_not_reported_again_is_not_online(app, monkeypatch):
    presence.report({"one"})
    assert presence.count() == 1
    monkeypatch.setattr(presence, "LASTS", 1)
    time.sleep(2.1)
    assert presence.count() == 0


@pytest.mark.fleet
def test_one_query_a_period_for_all_processes(start, listener, queries):
    for n in range(2):
        start(f"app{n}")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/users/count"
    began, answers = time.monotonic(), Counter()
    with ThreadPoolExecutor(16) as pool:
        while time.monotonic() - began < headcount.PERIOD + 3:
            for status, body in pool.map(lambda _: send("GET", url), range(64)):
                assert status == 200, body
                answers[json.loads(body)["as_of"]] += 1
            time.sleep(0.1)
    periods = (time.monotonic() - began) / headcount.PERIOD
    assert sum(answers.values()) > 500
    assert queries() == len(answers), "each figure is one query"
    assert 2 <= len(answers) <= periods + 1


def test_the_old_figure_is_served_while_one_asks_for_the_new(app, client, monkeypatch):
    first = client.get("/users/count").json
    asking, go_on, real = threading.Event(), threading.Event(), headcount.query

    def slow():
        asking.set()
        assert go_on.wait(10)
        return real()

    monkeypatch.setattr(headcount, "query", slow)
    monkeypatch.setattr(headcount, "KEPT", 60)
    app.extensions["redis"].run(lambda c: c.delete(headcount.LOCK))
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(lambda: app.test_client().get("/users/count").json)
        assert asking.wait(5)
        assert client.get("/users/count").json["as_of"] == first["as_of"]
        go_on.set()
        assert renewing.result()["as_of"] > first["as_of"]
    assert client.get("/users/count").json["as_of"] > first["as_of"]


def test_without_redis_a_process_asks_at_its_own_pace(app, client, redis_server, queries):
    redis_server.kill()
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: app.test_client().get("/users/count").json, range(100)))
    finally:
        redis_server.start()
    assert len({answer["as_of"] for answer in found}) == 1
    assert {answer["online"] for answer in found} == {None}
    assert queries() == 1


def test_a_moment_without_redis_costs_no_query(client, redis_server, queries):
    first = client.get("/users/count").json
    headcount.figure.__init__()
    assert client.get("/users/count").json["as_of"] == first["as_of"]  # by Redis, not by us
    redis_server.kill()
    try:
        assert client.get("/users/count").json["as_of"] == first["as_of"]
    finally:
        redis_server.start()
    assert queries() == 1


def test_without_a_database_the_last_figure_stands(app, client, postgres):
    first = client.get("/users/count").json
    app.extensions["redis"].run(lambda c: c.delete(headcount.LOCK))
    postgres.stop()
    try:
        answer = client.get("/users/count")
    finally:
        postgres.start()
    assert (answer.status_code, answer.json["as_of"]) == (200, first["as_of"])


def test_nothing_at_all_is_a_503(lonely):
    answer = lonely.test_client().get("/users/count")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
