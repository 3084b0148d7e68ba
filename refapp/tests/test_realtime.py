"""Messages reach everyone once, in order, on every host; nobody else gets any."""

import asyncio
import contextlib
import json
import socket
import time
import uuid

import aiohttp
import pytest
import socketio
from conftest import ADMIN_PASSWORD, make_token
from people import connect, end, until
from realtime_hosts import disperse, gather, talk
from refapp.messages import MOST
from services import send


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


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


def test_long_polling_and_other_sites_are_refused(hosts):
    status, body = send(
        "GET", f"http://127.0.0.1:{hosts.ports[0]}/socket.io/?EIO=4&transport=polling"
    )
    assert (status, json.loads(body)["detail"]) == (400, "Only the transport websocket is served.")
    status, _ = send(
        "GET",
        f"http://127.0.0.1:{hosts.ports[0]}/socket.io/?EIO=4&transport=websocket",
        headers=HANDSHAKE | {"Origin": "https://elsewhere.example"},
    )
    assert status == 400


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"])
def test_what_only_looks_like_a_handshake_is_refused(hosts, name):
    headers = {each: value for each, value in HANDSHAKE.items() if each != name}
    where = f"http://127.0.0.1:{hosts.ports[0]}/socket.io/?EIO=4&transport=websocket"
    status, body = send("GET", where, headers=headers)
    assert (status, json.loads(body)["status"]) == (400, 400)


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


def test_a_user_has_a_bound_for_the_whole_fleet(hosts, client, store):
    name = uuid.uuid4().hex
    token, other = make_token(name), make_token()
    user = uuid.uuid5(uuid.NAMESPACE_DNS, name)
    store.set(f"refapp:said:{user}", MOST - 1, ex=60)

    async def say(port, token, client_id):
        visitor = socketio.AsyncClient(reconnection=False)
        await connect(visitor, port, token)
        answer = await visitor.call("send", {"client_id": client_id, "text": "x"})
        await end(visitor)
        return answer

    async def work():
        here, there = hosts.ports
        first = await say(here, token, "first")
        refused = await say(there, token, "second")
        assert refused["status"] == 429
        assert 0 < refused["retry_after"] <= 60
        assert await say(there, token, "first") == first, "what is kept is said to be"
        assert "id" in await say(there, other, uuid.uuid4().hex)

    talk(work())
    headers = {"Authorization": f"Bearer {token}"}
    answer = client.post("/messages", json={"text": "x"}, headers=headers)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    store.delete(f"refapp:said:{user}")
    assert client.post("/messages", json={"text": "x"}, headers=headers).status_code == 201
    assert 0 < store.ttl(f"refapp:said:{user}") <= 60


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


@pytest.fixture
def realtime(start):
    """One process with four threads, each of which a connection takes."""
    changes = {"APP_PROCESS": "realtime"}
    options = ("--threads", "4")
    app = "refapp.realtime.wsgi:app"
    return start("four", changes=changes, workers=1, app=app, options=options)


async def linger(port, says=None):
    """Stay connected, with nothing but answers to pings; returns for how long that went well."""
    url = f"http://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        began = time.monotonic()
        if says:
            await socket.send_str(f"40{json.dumps({'token': says})}")
        async for packet in socket:
            if packet.data == "2":
                await socket.send_str("3")
        return time.monotonic() - began


def test_who_shows_no_good_token_does_not_keep_a_thread(realtime):
    async def work():
        tokens = (None, "a.b.c", make_token(seconds=2), None)
        strangers = [asyncio.create_task(linger(realtime.port, each)) for each in tokens]
        await asyncio.sleep(1)
        assert await asyncio.to_thread(realtime.probe) is None, "they have every thread"
        stayed = await asyncio.wait_for(asyncio.gather(*strangers), 30)
        assert min(stayed) > 8, "a slow client has time to show a token"
        assert max(stayed[0], stayed[1], stayed[3]) < 15
        assert 11 < stayed[2] < 19, "from when its token had expired"
        assert await asyncio.to_thread(realtime.probe) == 200

    talk(work())


def shake_hands(port):
    """Return the socket of a WebSocket of nobody, and what was answered."""
    connection = socket.create_connection(("127.0.0.1", port), 5)
    head = ["GET /socket.io/?EIO=4&transport=websocket HTTP/1.1", "Host: x"]
    head += [f"{name}: {value}" for name, value in HANDSHAKE.items()]
    head += ["Sec-WebSocket-Extensions: permessage-deflate"]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection, connection.recv(1024)


def frame(data, first=0x81):
    """Return a frame: of a text that is whole, unless its first byte says otherwise."""
    size = bytes([0xFF]) + len(data).to_bytes(8)  # masked, by nothing
    return bytes([first]) + size + bytes(4) + data


def send_without_end(connection):
    """Send 50 MB of a packet that is never whole."""
    connection.sendall(frame(b"x" * 10_000, first=0x01))
    for _ in range(5_000):
        connection.sendall(frame(b"x" * 10_000, first=0x00))


def test_a_packet_has_a_bound_while_it_comes(realtime):
    for _ in range(5):  # a thread more than there are
        connection, answer = shake_hands(realtime.port)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"deflate" not in answer, "it would be another size than what comes"
        with connection, pytest.raises(ConnectionError):
            send_without_end(connection)
    assert realtime.probe() == 200


@pytest.mark.parametrize("packet", [b"", b"hello", b"4" + b"[" * 10_000])
def test_what_is_no_packet_ends_the_connection(hosts, packet):
    connection, _ = shake_hands(hosts.ports[0])
    with connection:
        connection.sendall(frame(packet))
        heard = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(1024):
                heard += more
    assert b"HTTP/1.1" not in heard
    failed = "Error handling request GET /socket.io/?EIO=4&transport=websocket"
    assert failed not in [line["message"] for line in hosts.live[0].lines()]


def test_who_shows_no_good_token_does_not_delay_a_stop(realtime):
    async def work():
        strangers = [asyncio.create_task(linger(realtime.port, each)) for each in (None, "a.b.c")]
        await asyncio.sleep(1)
        began = time.monotonic()
        assert await asyncio.to_thread(realtime.stop) == 0
        assert time.monotonic() - began < 10
        await asyncio.gather(*strangers)

    talk(work())
