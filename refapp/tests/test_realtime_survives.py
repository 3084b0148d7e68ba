"""Nothing is lost or doubled, whatever stops meanwhile."""

import asyncio
from datetime import datetime

import pytest
import socketio
from conftest import make_token
from people import connect, end, heard, until, verify
from realtime_hosts import disperse, gather, talk

STREAM = "refapp:messages"
SPREAD = 2.0  # seconds over which a process sends its clients away
SAID = 600  # messages by all, at least


async def speak(people, event):
    """Have a third of them talk until something has happened, and for long enough.

    Who waits for acknowledgements says nothing new: a slow machine has less to do.
    """
    said = 0
    while said < SAID or not event.is_set():
        for person in people[::3]:
            if person.waits() < 5:
                person.say()
                said += 1
        await asyncio.sleep(0.4)


async def all_heard(people):
    """Wait until everyone has as much as was said; verify() tells what exactly."""
    said = sum(1 for person in people[::3] for _ in range(next(person._numbers)))

    def acknowledged():
        return sum(len(person.acknowledged) for person in people if person.there())

    await until(lambda: acknowledged() >= said, 120)
    await until(
        lambda: all(person.there() and len(heard(person, people)) >= said for person in people), 120
    )
    await asyncio.sleep(0.5)  # for what would come twice
    assert said >= SAID


@pytest.mark.fleet
def test_nothing_is_lost_or_doubled_when_processes_are_replaced(hosts):
    async def work():
        people = await gather(60, hosts)
        replaced = asyncio.Event()
        talking = asyncio.create_task(speak(people, replaced))
        for n in range(2):
            await asyncio.sleep(1)
            await asyncio.to_thread(hosts.replace, n)
        replaced.set()
        await talking
        await all_heard(people)
        verify(people)
        assert all(len(person.joins) > 1 for person in people), "the replacement went unnoticed"
        assert all(join["complete"] for person in people for join in person.joins)
        pauses = [each["reconnect_after_ms"] for person in people for each in person.farewells]
        assert len(pauses) >= 60
        assert len(set(pauses)) > 20, "no jitter"
        await disperse(people)

    talk(work())


def test_a_worker_stays_until_its_last_client_has_gone(hosts):
    async def work():
        people = await gather(24, hosts)
        lines = await asyncio.to_thread(hosts.replace, 0)
        await disperse(people)
        return lines

    lines = asyncio.run(work())
    told = [line for line in lines if line["message"] == "sending clients away"]
    assert sum(line["clients"] for line in told) >= 12
    for line in told:
        [exits] = [
            datetime.fromisoformat(each["time"])
            for each in lines
            if each["pid"] == line["pid"] and each["message"].startswith("Worker exiting")
        ]
        stayed = (exits - datetime.fromisoformat(line["time"])).total_seconds()
        if line["clients"]:
            assert stayed >= SPREAD * (1 - 1 / line["clients"]), line


def test_nothing_is_lost_or_doubled_when_redis_is_killed(hosts, redis_server):
    async def work():
        people = await gather(60, hosts)
        restarted = asyncio.Event()
        talking = asyncio.create_task(speak(people, restarted))
        await asyncio.sleep(1)
        await asyncio.to_thread(redis_server.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(redis_server.start)
        restarted.set()
        await talking
        await all_heard(people)
        verify(people)
        await disperse(people)

    talk(work())


# Last: what these put into the stream would still be on its way to the clients of other tests.


def test_a_client_gets_what_it_missed_or_hears_that_it_is_gone(hosts, store):
    async def join(last):
        client = socketio.AsyncClient(reconnection=False)
        came = []
        client.on("message", came.append)
        await connect(client, hosts.ports[0], make_token())
        answer = await client.call("join", {"last": last})
        await end(client)
        return answer, [message["text"] for message in came]

    async def work():
        [person] = await gather(1, hosts)
        pipeline = store.pipeline()
        for n in range(1700):  # more than pages, and than processes remember
            pipeline.xadd(STREAM, {"sender": "x", "client_id": str(n), "text": str(n)})
        pipeline.execute()
        await until(lambda: len(person.heard) == 1700)
        ids = [message["id"] for message in person.heard]
        answer, texts = await join(ids[9])
        assert answer == {"position": ids[-1], "missed": 1690, "complete": True, "host": "app0"}
        assert texts == [str(n) for n in range(10, 1700)]
        store.xtrim(STREAM, minid=ids[100], approximate=False)
        for last, complete, missed in [(99, False, 1600), (100, True, 1599), (1699, True, 0)]:
            answer, texts = await join(ids[last])
            assert (answer["complete"], answer["missed"]) == (complete, missed)
            assert len(texts) == missed
        answer, _ = await join("999999999999999-0")
        assert answer == {"position": ids[-1], "missed": 0, "complete": False, "host": "app0"}
        await disperse([person])

    talk(work())


def test_the_stream_is_bounded(hosts, store):
    pipeline = store.pipeline()
    for n in range(12_000):
        pipeline.xadd(STREAM, {"sender": "x", "client_id": str(n), "text": "x"})
    pipeline.execute()

    async def work():
        [person] = await gather(1, hosts)
        person.say()
        await until(lambda: person.acknowledged)
        await disperse([person])

    talk(work())
    assert store.xlen(STREAM) <= 10_100
