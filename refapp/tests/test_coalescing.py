"""Many who ask for one total at once cost one query, on however many hosts they are answered."""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa
from refapp.coalesce import LEASE, Flights, across_hosts, lease_key
from refapp.extensions import redis
from selling import eventually, sell_unnoticed
from web import THREADS, Client

from refapp import totals

SERVERS, WORKERS, ASKERS = 3, 2, 500


@pytest.fixture
def servers(start, make_listener):
    """Start gunicorns on ports of their own that share the data tiers, like hosts do."""

    def run(way="cached", **changes):
        settings = {"REFAPP_TOTALS": way, "REFAPP_DATABASE_POOL": "3", **changes}
        return [
            start(f"host-{n}", on=make_listener(), changes=settings, workers=WORKERS)
            for n in range(SERVERS)
        ]

    return run


@pytest.fixture
def queries(sql, database):
    """Count the queries for totals that this database has finished, as it counts them itself."""
    sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    def count():
        [(calls,)] = sql(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d"
            " ON d.oid = s.dbid WHERE d.datname = current_database()"
            " AND query LIKE 'SELECT count(%%sum(sales.amount)%%'"
        )
        return calls

    return count


@pytest.fixture
def sold(sql, app, item):
    """An item with one sale, and nothing in the cache."""
    sell_unnoticed(sql, item)
    return item


@contextlib.contextmanager
def slow_database(database):
    """Let no query for a total end while the block runs."""
    url = sa.make_url(database)
    host, port = url.query["host"].split(":")
    with psycopg.connect(host=host, port=port, user="refapp", dbname=url.database) as connection:
        connection.execute("LOCK TABLE sales IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


async def ask(ports, item, count, database, hold):
    """Send `count` requests at once, over the ports in turn; return statuses and bodies."""
    request = f"GET /sales/total?item={item} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    streams = [
        await asyncio.open_connection("127.0.0.1", ports[n % len(ports)]) for n in range(count)
    ]

    async def read(reader, writer):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()  # gunicorn's main loop waits for that
        return int(head.split()[1]), body

    with slow_database(database):
        for _, writer in streams:
            writer.write(request.encode())
        await asyncio.gather(*(writer.drain() for _, writer in streams))
        await asyncio.sleep(hold)
    return await asyncio.gather(*(read(*stream) for stream in streams))


def ask_all(webs, item, database, count=ASKERS, hold=0.3):
    answers = asyncio.run(ask([web.port for web in webs], item, count, database, hold))
    assert {status for status, _ in answers} == {200}
    assert {json.loads(body)["total"] for _, body in answers} == {5}


def metric(webs, name):
    """Sum a metric over the servers, as Prometheus would."""
    lines = [
        line
        for web in webs
        for line in Client(web.port).get("/metrics")[1].decode().splitlines()
        if line.startswith(name)
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_500_who_ask_at_once_on_a_cold_cache_cost_one_query(servers, queries, sold, database):
    webs = servers()
    before = queries()
    ask_all(webs, sold, database)
    assert queries() - before == 1
    assert metric(webs, 'refapp_totals_total{source="database"}') == 1
    assert metric(webs, 'refapp_shared_total{where="fleet"}') > 0, "no process waited for another"
    assert metric(webs, 'refapp_shared_total{where="process"}') > 0, "no thread waited for another"


def test_coalesced_without_a_cache_costs_a_query_a_wave(servers, queries, sold, database):
    """What is under way is shared, what is done is not: threads limit who asks at once."""
    webs = servers("coalesced")
    before = queries()
    ask_all(webs, sold, database)
    waves = ASKERS / (SERVERS * WORKERS * THREADS)
    assert 1 <= queries() - before <= ASKERS / 10
    assert queries() - before >= waves - 1


def test_plain_costs_a_query_each(servers, queries, sold, database):
    webs = servers("plain")
    before = queries()
    ask_all(webs, sold, database, count=60, hold=0)
    assert queries() - before == 60


def test_without_redis_each_process_costs_a_query_a_wave(servers, queries, sold, database):
    webs = servers(REFAPP_REDIS_SENTINELS="127.0.0.1:1")
    before = queries()
    ask_all(webs, sold, database)
    assert 1 <= queries() - before <= ASKERS / 5


def holder(item):
    """The lease under which an item without a tombstone is summed."""
    return redis.run(lambda client: client.get(lease_key(f"cached:{item}:")))


def test_a_killed_holder_delays_others_by_its_lease_at_most(servers, queries, sold, database):
    webs = servers()

    def get(web):
        began = time.monotonic()
        status, body = Client(web.port).get(f"/sales/total?item={sold}")
        return status, json.loads(body)["total"], time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        with slow_database(database):
            doomed = pool.submit(get, webs[0])
            eventually(lambda: holder(sold))
            others = [pool.submit(get, web) for web in webs[1:] for _ in range(3)]
            time.sleep(0.2)
            for pid in webs[0].workers():
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(ConnectionError):
            doomed.result()
        before = queries()
        answers = [other.result() for other in others]
    assert {answer[:2] for answer in answers} == {(200, 5)}
    assert max(seconds for _, _, seconds in answers) < LEASE + 1
    # The killed one's own query may end as well: nobody has told the database.
    assert queries() - before <= 2


def test_work_as_long_as_a_statement_may_take_is_still_done_once(app):
    done = []

    def work():
        done.append(1)
        time.sleep(1.9)
        return {"done": len(done)}

    with ThreadPoolExecutor(3) as pool:  # each as if it were a process
        answers = [pool.submit(across_hosts, "long", work) for _ in range(3)]
        assert [answer.result() for answer in answers] == [{"done": 1}] * 3
    assert len(done) == 1


def test_a_failure_is_shared_with_nobody_else(app):
    """Whoever waits in another process tries again at once, and does not fail with it."""
    started, failed = threading.Event(), threading.Event()

    def fail():
        started.set()
        time.sleep(0.2)
        failed.set()
        raise ValueError

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(across_hosts, "failing", fail)
        started.wait()
        second = pool.submit(across_hosts, "failing", lambda: {"after": failed.is_set()})
        with pytest.raises(ValueError):  # noqa: PT011  it is ours
            first.result()
        began = time.monotonic()
        assert second.result() == {"after": True}
    assert time.monotonic() - began < LEASE / 2
    assert redis.run(lambda client: client.get(lease_key("failing"))) is None


def test_those_of_one_process_fail_together_and_the_next_one_tries(app):
    flights, asked = Flights(), []

    def work():
        asked.append(1)
        time.sleep(0.2)
        if len(asked) == 1:
            raise ValueError
        return {"asked": len(asked)}

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(flights.share, "together", work) for _ in range(4)]
        assert [type(result.exception()) for result in results] == [ValueError] * 4
    assert flights.share("together", work) == {"asked": 2}


def test_who_asks_after_a_write_does_not_join_who_asked_before(app, sold, monkeypatch):
    """The first has summed and not delivered yet: its sum is too old for the second."""
    summed, written = threading.Event(), threading.Event()
    query = totals.query

    def slow_query(item):
        found = query(item)
        if not summed.is_set():
            summed.set()
            written.wait(5)
        return found

    monkeypatch.setattr(totals, "query", slow_query)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(totals.get, sold)
        summed.wait()
        totals.forget(sold)
        second = pool.submit(totals.get, sold)
        assert second.result(1)["total"] == 5
        assert not first.done()
        written.set()
        first.result()
