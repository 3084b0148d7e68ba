"""A sale is recorded once; its total is never an old one, cached or not."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa
from conftest import ADMIN_PASSWORD, build
from refapp.extensions import db, edge, redis
from web import THREADS

from refapp import db as database_module
from refapp import edge as module_edge
from refapp import sales, totals


@pytest.fixture
def sell(app, bearer):
    """POST a sale, from any thread."""

    def post(item, amount=1, key=None):
        headers = bearer | ({"Idempotency-Key": key} if key else {})
        body = {"item": item, "amount": amount}
        return app.test_client().post("/sales", json=body, headers=headers)

    return post


def total(client, item):
    answer = client.get(f"/sales/total?item={item}")
    assert answer.status_code == 200
    return answer.json["count"], answer.json["total"]


def sell_unnoticed(sql, item, amount=5):
    """Record a sale behind the application's back."""
    sql(
        "INSERT INTO sales (id, item, amount, user_id)"
        " SELECT gen_random_uuid(), %s, %s, id FROM users WHERE username = 'admin'",
        item,
        amount,
    )


def eventually(check, seconds=3):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_100000_sales_are_seeded_the_same_way_everywhere(client, sql):
    assert total(client, "item-1")[0] == 1000
    [(count, items)] = sql(
        "SELECT count(*), count(DISTINCT item) FROM sales WHERE idempotency_key IS NULL"
        " AND user_id IS NULL"
    )
    assert (count, items) == (100_000, 100)


def test_totals_are_read_from_the_index_alone(sql):
    plan = "\n".join(
        line for (line,) in sql("EXPLAIN SELECT sum(amount) FROM sales WHERE item = 'item-7'")
    )
    assert "Index Only Scan using sales_item_amount" in plan


def test_a_sale_needs_a_token(client):
    answer = client.post("/sales", json={"item": "a", "amount": 1})
    assert answer.status_code == 401


def test_a_sale_can_be_looked_up(client, sell, item):
    key = uuid.uuid4().hex
    sale = sell(item, 7, key)
    assert sale.status_code == 201
    assert client.get(f"/sales/{sale.json['id']}").json == sale.json
    assert client.get(f"/sales?idempotency_key={key}").json == {"count": 1, "sales": [sale.json]}
    assert client.get(f"/sales?idempotency_key={key}x").json == {"count": 0, "sales": []}
    assert client.get(f"/sales/{uuid.uuid4()}").status_code == 404


def test_a_repeat_gets_the_first_answer(client, sell, item):
    key = uuid.uuid4().hex
    first, second = sell(item, 7, key), sell(item, 7, key)
    assert second.status_code == 201
    assert second.json == first.json
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert total(client, item) == (1, 7)


def test_a_key_belongs_to_one_request(client, sell, item):
    key = uuid.uuid4().hex
    assert sell(item, 7, key).status_code == 201
    answer = sell(item, 8, key)
    assert answer.status_code == 422
    assert answer.json["errors"]["headers"]["Idempotency-Key"]
    assert total(client, item) == (1, 7)


def test_a_key_belongs_to_one_user(client, sell, sql, item):
    sql(
        "INSERT INTO users (id, username, password_hash) SELECT gen_random_uuid(), %s, "
        "password_hash FROM users WHERE username = 'admin'",
        item,
    )
    login = client.post("/auth/login", json={"username": item, "password": ADMIN_PASSWORD})
    key = uuid.uuid4().hex
    assert sell(item, 1, key).status_code == 201
    headers = {"Authorization": f"Bearer {login.json['access_token']}", "Idempotency-Key": key}
    answer = client.post("/sales", json={"item": item, "amount": 2}, headers=headers)
    assert answer.status_code == 201
    assert total(client, item) == (2, 3)


def test_one_key_at_the_same_time_records_one_sale(client, sell, item):
    key = uuid.uuid4().hex
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: sell(item, 7, key), range(24)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert total(client, item) == (1, 7)


def test_sales_without_a_key_are_all_recorded(client, sell, item):
    with ThreadPoolExecutor(8) as pool:
        assert {a.status_code for a in pool.map(lambda _: sell(item), range(20))} == {201}
    assert total(client, item) == (20, 20)


def test_a_lost_answer_to_commit_is_repeated_only_with_a_key(client, sell, item, monkeypatch):
    commit = sa.orm.Session.commit
    lost = []

    def lose_the_answer(session):
        commit(session)
        if lost:
            lost.pop()
            gone = psycopg.errors.AdminShutdown("terminated")
            raise sa.exc.OperationalError("COMMIT", {}, gone, connection_invalidated=True)

    monkeypatch.setattr(sa.orm.Session, "commit", lose_the_answer)
    lost.append(1)
    assert sell(item, 1, uuid.uuid4().hex).status_code == 201
    assert total(client, item) == (1, 1)
    lost.append(1)
    assert sell(item, 1).status_code == 503, "its outcome is unknown to the app"
    eventually(lambda: db._failing is False or total(client, item))


def test_a_frozen_process_keeps_a_key_for_two_seconds_at_most(client, sell, sql, database, item):
    key = uuid.uuid4().hex
    [(user,)] = sql("SELECT id FROM users WHERE username = 'admin'")
    engine = database_module.make_engine(database)
    frozen = engine.connect()
    frozen.execute(
        sa.text(
            "INSERT INTO idempotency_keys (user_id, key, fingerprint, response)"
            " VALUES (:user, :key, 'x', '{}')"
        ),
        {"user": user, "key": key},
    )
    started = time.monotonic()
    answer = sell(item, 1, key)
    assert time.monotonic() - started < 3, "a try of the balancer"
    if answer.status_code == 503:
        answer = sell(item, 1, key)
    assert answer.status_code == 201
    assert total(client, item) == (1, 1)
    frozen.invalidate()
    engine.dispose()


# The total's cache


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
