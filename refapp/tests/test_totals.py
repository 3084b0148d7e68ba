"""A total is never an old one, cached here, at the edge, or not."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import build
from refapp.extensions import edge, redis
from selling import eventually, sell_unnoticed, total

from refapp import edge as module_edge
from refapp import sales, totals


def test_a_total_is_cached_and_forgotten_on_a_write(client, sell, sql, item):
    sell(item, 1)
    assert total(client, item) == (1, 1)
    sell_unnoticed(sql, item)
    assert total(client, item) == (1, 1), "cached: nobody told the application"
    sell(item, 1)
    assert total(client, item) == (3, 7)
    ttl = redis.run(lambda client: client.pttl(totals.key(item)))
    assert 0 < ttl <= totals.TTL * 1000


def test_an_old_sum_never_overwrites_a_newer_one(client, sell, item, monkeypatch):
    """A reader sums, a write commits and is acknowledged, then the reader stores."""
    summed, written = threading.Event(), threading.Event()
    query = totals.query

    def slow_query(wanted):
        found = query(wanted)
        if threading.current_thread().name == "slow":
            summed.set()
            assert written.wait(5)
        return found

    monkeypatch.setattr(totals, "query", slow_query)
    got = []
    reader = threading.Thread(target=lambda: got.append(totals.get(item)), name="slow")
    reader.start()
    assert summed.wait(5)
    sell(item, 5)
    written.set()
    reader.join()
    assert got[0]["total"] == 0, "it did sum before the write"
    assert total(client, item) == (1, 5)


def test_acknowledged_writes_are_seen_by_everyone_at_once(client, app, sell, item):
    stop = threading.Event()

    def read():
        while not stop.is_set():
            app.test_client().get(f"/sales/total?item={item}")

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for count in range(1, 31):
                assert sell(item, 1).status_code == 201
                assert total(client, item) == (count, count)
        finally:
            stop.set()
        for reader in readers:
            reader.result()


def test_a_repeat_forgets_too(client, sell, item, monkeypatch):
    """The process that recorded the sale died before it could tell Redis."""
    key = uuid.uuid4().hex
    sell(item, 1)
    total(client, item)
    with monkeypatch.context() as patch:
        patch.setattr(totals, "forget", lambda item: None)
        sell(item, 3, key)
    assert total(client, item) == (1, 1)
    sell(item, 3, key)
    assert total(client, item) == (2, 4)


def test_what_was_never_sold_is_not_kept(client, sql, item):
    answer = client.get(f"/sales/total?item={item}")
    assert (answer.json["count"], answer.headers["Cache-Control"]) == (0, "no-store")
    sell_unnoticed(sql, item)
    assert total(client, item) == (1, 5)


@pytest.mark.parametrize("way", ["plain", "coalesced"])
def test_other_ways_keep_nothing(monkeypatch, environ, sell, sql, item, way):
    client = build(monkeypatch, environ | {"REFAPP_TOTALS": way}).test_client()
    sell(item, 1)
    assert total(client, item) == (1, 1)
    sell_unnoticed(sql, item)
    answer = client.get(f"/sales/total?item={item}")
    assert (answer.json["total"], answer.headers["Cache-Control"]) == (6, "no-store")


def test_keys_end_at_different_times(client, sell):
    items = [f"item-{n}" for n in range(1, 21)]
    for item in items:
        redis.run(lambda client, item=item: client.delete(totals.key(item)))
        total(client, item)
    left = redis.run(lambda client: [client.pttl(totals.key(item)) for item in items])
    assert totals.TTL * 800 - 2000 < min(left) < max(left) <= totals.TTL * 1000
    assert max(left) - min(left) > totals.TTL * 50


@pytest.mark.parametrize("way", ["stop", "freeze"])
def test_without_redis_totals_come_from_the_database(client, sell, item, redis_server, way):
    assert total(client, item) == (0, 0)
    getattr(redis_server, way)()
    try:
        started = time.monotonic()
        assert sell(item, 5).status_code == 201
        for _ in range(10):
            assert total(client, item) == (1, 5)
        assert time.monotonic() - started < 3
        assert client.get("/readyz").json["not_ready"] == ["redis"]
    finally:
        redis_server.start() if way == "stop" else redis_server.thaw()
    # What was in Redis before is forgotten as soon as it can be told.
    eventually(lambda: not totals.owed._items)
    assert total(client, item) == (1, 5)


# The edge


def test_a_total_says_how_long_it_may_be_kept(client, sell, item):
    sell(item)
    answer = client.get(f"/sales/total?item={item}")
    assert answer.headers["Cache-Control"] == sales.EDGE
    for other in (f"item={item}&x=1", f"%69tem={item}", f"item={item.replace('-', '%2d')}"):
        answer = client.get(f"/sales/total?{other}")
        assert answer.status_code in (200, 422)
        assert answer.headers["Cache-Control"] == "no-store", "a purge would not find it"


def test_a_total_that_took_long_is_not_for_the_edge(client, sell, item, monkeypatch):
    """Summed before a write, it could arrive after the last purge."""
    sell(item)
    query = totals.query

    def slow_query(wanted):
        found = query(wanted)
        time.sleep(module_edge.SECOND)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(totals, "query", slow_query)
        answer = client.get(sales.total_path(item))
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get(sales.total_path(item)).headers["Cache-Control"] == sales.EDGE


def test_errors_are_not_kept(client):
    assert client.get("/sales/total").headers["Cache-Control"] == "no-store"


def test_a_write_purges_the_edge_now_and_once_more(client, sell, cache):
    sell("an item", 5)
    path = "/sales/total?item=an%20item"
    assert cache.purged == [("PURGE", path)], "before the answer"
    assert client.get(path).headers["Cache-Control"] == sales.EDGE
    eventually(lambda: len(cache.purged) == 2, 1)


def test_a_cache_that_fails_fails_no_write_and_is_told_later(client, sell, cache, item):
    cache.status = 500
    assert sell(item, 5).status_code == 201
    assert cache.purged == []
    cache.status = 204
    eventually(lambda: ("PURGE", sales.total_path(item)) in cache.purged, 5)


def test_a_frozen_cache_slows_one_write_only(client, sell, cache, item):
    cache.delay = 2
    started = time.monotonic()
    for _ in range(5):
        assert sell(item).status_code == 201
    assert time.monotonic() - started < 1.5
    cache.delay = 0
    eventually(lambda: cache.purged, 5)


def test_what_is_due_is_done_when_the_process_stops(client, sell, cache, item):
    sell(item)
    edge.flush()
    assert cache.purged == [("PURGE", sales.total_path(item))] * 2


# The database
