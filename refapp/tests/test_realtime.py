"""Messages reach everyone once, in order, whatever stops meanwhile."""

import asyncio
import json
import socket
import tempfile
import uuid
from datetime import datetime
from pathlib import Path

import pytest
import redis
import socketio
from conftest import ADMIN_PASSWORD, make_environ, make_token
from people import Person, connect, end, heard, until, verify
from services import PASSWORD, send
from web import Web

STREAM = "refapp:messages"
SPREAD = 2.0  # seconds over which a process sends its clients away


@pytest.fixture
def store(redis_server):
    """Redis as the application sees it."""
    with redis.Redis(port=redis_server.port, password=PASSWORD, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="module")
def hosts(database, redis_server, directory):
    """Two hosts with a real-time server each; `replace` deploys on one."""
    environ = make_environ(
        REFAPP_DATABASE_URL=database,
        REFAPP_REDIS_SENTINELS=f"127.0.0.1:{redis_server.sentinel.port}",
        APP_PROCESS="realtime",
        GUNICORN_CMD_ARGS="--threads 100",
    )
    hosts = Hosts(environ, Path(tempfile.mkdtemp(dir=directory)))
    yield hosts
    hosts.close()


class Hosts:
    """Each host has a socket of its own, which its releases share."""

    def __init__(self, environ, directory):
        self._environ, self._directory = environ, directory
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2)]
        self.ports = [listener.getsockname()[1] for listener in self._listeners]
        self._release = 0
        self.live = [self._run(n) for n in range(2)]

    def _run(self, n):
        environ = self._environ | {"APP_HOST": f"app{n}"}
        name = f"app{n}-{self._release}"
        app = "refapp.realtime.wsgi:app"
        return Web(environ, self._listeners[n], self._directory, name, app=app)

    def close(self):
        for web in self.live:
            web.stop()
            web.log.close()
        for listener in self._listeners:
            listener.close()

    def replace(self, n):
        """Start a release beside the live one of a host, then stop that one; return its log."""
        self._release += 1
        old, self.live[n] = self.live[n], self._run(n)
        assert old.stop() == 0, old.read_log()
        lines = old.lines()
        old.log.close()
        return lines


def talk(work):
    """Run a coroutine of the test."""
    asyncio.run(work)


async def gather(count, hosts):
    people = []
    for n in range(count):
        ports = hosts.ports if n % 2 else hosts.ports[::-1]
        name = f"{uuid.uuid4().hex[:8]}-{n}"
        people.append(Person(name, ports, make_token(name)))
    await asyncio.gather(*(person.come() for person in people))
    return people


async def disperse(people):
    await asyncio.gather(*(person.go() for person in people))


def test_a_wrong_token_is_refused(hosts):
    async def refused(token):
        client = socketio.AsyncClient(reconnection=False)
        reasons = []
        client.on("connect_error", reasons.append)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await connect(client, hosts.ports[0], token)
        assert reasons == [{"message": "The token is not valid.", "data": {"status": 401}}], token
        await end(client)

    async def work():
        for token in (None, "", 7, "a.b.c", make_token(seconds=-60), make_token(type="refresh")):
            await refused(token)

    talk(work())


def test_a_token_whose_login_has_ended_is_refused(hosts, client, bearer, login):
    async def work():
        token = login["access_token"]
        visitor = socketio.AsyncClient(reconnection=False)
        await connect(visitor, hosts.ports[0], token)
        await end(visitor)
        assert client.post("/auth/logout", json={}, headers=bearer).status_code == 204
        visitor = socketio.AsyncClient(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await connect(visitor, hosts.ports[1], token)
        await end(visitor)

    talk(work())


def test_a_logout_ends_the_connections_of_that_login_only(hosts, client, bearer, login):
    other = client.post("/auth/login", json={"username": "admin", "password": ADMIN_PASSWORD})

    async def work():
        told = {"leaves": [], "stays": []}
        visitors = []
        tokens = login["access_token"], other.json["access_token"]
        for name, token in zip(told, tokens, strict=True):
            visitor = socketio.AsyncClient(reconnection=False)
            visitor.on("expired", lambda name=name: told[name].append("expired"))
            visitor.on("disconnect", lambda reason, name=name: told[name].append("disconnect"))
            await connect(visitor, hosts.ports[1], token)
            await visitor.call("join", {"last": None})
            visitors.append(visitor)
        await asyncio.sleep(4)
        assert told == {"leaves": [], "stays": []}
        assert client.post("/auth/logout", json={}, headers=bearer).status_code == 204
        await until(lambda: told["leaves"] == ["expired", "disconnect"], 6)
        assert told["stays"] == []
        for visitor in visitors:
            await end(visitor)

    talk(work())


def test_a_token_is_not_called_wrong_when_nobody_can_tell(hosts, postgres):
    async def work():
        visitor, reasons = socketio.AsyncClient(reconnection=False), []
        visitor.on("connect_error", reasons.append)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await connect(visitor, hosts.ports[0], make_token(login=str(uuid.uuid4())))
        assert [reason["data"]["status"] for reason in reasons] == [503]
        await end(visitor)

    postgres.stop()
    try:
        talk(work())
    finally:
        postgres.start()


def test_long_polling_and_other_sites_are_refused(hosts):
    status, body = send(
        "GET", f"http://127.0.0.1:{hosts.ports[0]}/socket.io/?EIO=4&transport=polling"
    )
    assert (status, json.loads(body)["detail"]) == (400, "Only the transport websocket is served.")
    status, _ = send(
        "GET",
        f"http://127.0.0.1:{hosts.ports[0]}/socket.io/?EIO=4&transport=websocket",
        headers={
            "Origin": "https://elsewhere.example",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        },
    )
    assert status == 400


def test_nothing_comes_before_the_token_or_the_join(hosts):
    async def work():
        client = socketio.AsyncClient(reconnection=False)
        came = []
        client.on("message", came.append)
        await connect(client, hosts.ports[0], make_token())
        [other] = await gather(1, hosts)
        other.say("hello")
        await until(lambda: other.heard)
        assert came == []
        await end(client)
        await disperse([other])

    talk(work())


def test_a_message_crosses_hosts(hosts):
    async def work():
        people = await gather(4, hosts)
        sent = people[0].say("hello")
        await until(lambda: all(person.heard for person in people))
        for person in people:
            [message] = person.heard
            assert message["sender"] == people[0].name
            assert (message["client_id"], message["text"]) == (sent, "hello")
            assert message["id"] == people[0].acknowledged[sent]["id"]
        await disperse(people)

    talk(work())


def test_what_is_sent_again_elsewhere_is_not_doubled(hosts):
    async def work():
        [listener] = await gather(1, hosts)
        token, said = make_token(), {"client_id": uuid.uuid4().hex, "text": "once"}
        answers = []
        for port in hosts.ports:
            client = socketio.AsyncClient(reconnection=False)
            await connect(client, port, token)
            answers += [await client.call("send", said) for _ in range(2)]
            answers.append(await client.call("send", said | {"text": "another"}))
            await end(client)
        assert len({answer["id"] for answer in answers if "id" in answer}) == 1
        assert [answer.get("status") for answer in answers] == [None, None, 422] * 2
        listener.say("last")
        await until(lambda: listener.heard and listener.heard[-1]["text"] == "last")
        assert [message["text"] for message in listener.heard] == ["once", "last"]
        await disperse([listener])

    talk(work())


WRONG = [
    ({"client_id": "a"}, "text"),
    ({"client_id": "a", "text": ""}, "text"),
    ({"client_id": "a", "text": 7}, "text"),
    ({"client_id": "a", "text": "x" * 2001}, "text"),
    ({"client_id": "", "text": "x"}, "client_id"),
    ({"text": "x"}, "client_id"),
    ({"client_id": "a", "text": "x", "more": 1}, "more"),
    ("text", "_schema"),
    (None, "_schema"),
]


def test_a_wrong_message_is_answered_with_its_field(hosts):
    async def work():
        client = socketio.AsyncClient(reconnection=False)
        await connect(client, hosts.ports[0], make_token())
        for data, field in WRONG:
            answer = await client.call("send", data)
            assert answer["status"] == 422
            assert list(answer["errors"]) == [field]
        assert (await client.call("join", {"last": "first"}))["errors"]["last"]
        await end(client)

    talk(work())


def test_a_token_that_expires_ends_the_connection(hosts):
    async def work():
        client = socketio.AsyncClient(reconnection=False)
        told = []
        client.on("expired", lambda: told.append("expired"))
        client.on("disconnect", lambda *_: told.append("disconnect"))
        await connect(client, hosts.ports[0], make_token(seconds=2))
        await until(lambda: told == ["expired", "disconnect"], 10)
        await end(client)

    talk(work())


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
