"""People who talk to each other over Socket.IO, and hold the server to what it promises."""

import asyncio
import contextlib
import itertools

import aiohttp
import socketio

CAME = 40  # seconds after which something that must come does not


class Person:
    """A client that always comes back, sends again what was not acknowledged, and drops nothing.

    It does not take doubles out: `heard` has every message as it came.
    """

    def __init__(self, name, ports, token):
        self.name, self.token = name, token
        self.ports = itertools.cycle(ports)  # another process at each attempt
        self.heard, self.joins, self.farewells = [], [], []
        self.errors, self.acknowledged = [], {}
        self.last = None
        self._unsent = {}
        self._numbers = itertools.count()
        self._wake = asyncio.Event()
        self._task = None

    def say(self, text=None):
        """Send a message, now or when there is a connection; returns its client_id."""
        client_id = f"{self.name}:{next(self._numbers)}"
        self._unsent[client_id] = text or client_id
        self._wake.set()
        return client_id

    def waits(self):
        """Return how many messages are not yet acknowledged."""
        return len(self._unsent)

    async def come(self):
        """Connect for the first time."""
        self._task = asyncio.create_task(self._stay())
        try:
            await until(lambda: self.joins or self._task.done())
        except TimeoutError:
            raise AssertionError(f"{self.name} could not join: {self.errors}") from None
        self.there()

    def there(self):
        """Return True, or raise what ended its attempts."""
        if self._task.done():
            self._task.result()
        return True

    async def go(self):
        """Leave for good."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _stay(self):
        # Not for ever: the library may keep a cancellation to itself.
        while not asyncio.current_task().cancelling():
            client = socketio.AsyncClient(reconnection=False)
            try:
                await self._visit(client)
            except (socketio.exceptions.SocketIOError, aiohttp.ClientError, OSError) as error:
                self.errors.append(error)  # it tries again
            finally:
                await end(client)
            await asyncio.sleep(0.1)

    async def _visit(self, client):
        gone = asyncio.Event()

        def hear(message):
            self.heard.append(message)
            self.last = message["id"]

        client.on("message", hear)
        client.on("leave", self.farewells.append)
        client.on("disconnect", lambda *_: (gone.set(), self._wake.set()))
        await connect(client, next(self.ports), self.token)
        joined = await client.call("join", {"last": self.last}, timeout=5)
        self.joins.append(joined)
        self.last = joined["position"]
        while not gone.is_set():
            self._wake.clear()
            # One after the other, so that they are kept in the order in which they were said.
            for client_id, text in list(self._unsent.items()):
                said = {"client_id": client_id, "text": text}
                self.acknowledged[client_id] = await client.call("send", said, timeout=5)
                del self._unsent[client_id]
            await self._wake.wait()


async def connect(client, port, token):
    """Connect the way the page does."""
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(10):  # the client waits without an end for the first packet
        await client.connect(url, auth={"token": token}, transports=["websocket"], wait_timeout=5)


async def end(client):
    """Close a client, also one whose closing would wait for ever on a queue that nobody reads."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.shutdown(), 2)
    if client.eio.http:
        await client.eio.http.close()


async def until(check, seconds=CAME):
    """Return once a check holds."""
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.02)


def heard(person, people):
    """Return what someone heard of these people: a server may still have older things to tell."""
    names = {each.name for each in people}
    return [message for message in person.heard if message["sender"] in names]


def verify(people):
    """Everyone heard everything that anyone said, once, and each speaker in order."""
    said = {client_id for person in people for client_id in person.acknowledged}
    order = [message["id"] for message in heard(people[0], people)]
    for person in people:
        messages = heard(person, people)
        names = [message["client_id"] for message in messages]
        assert len(names) == len(set(names)), "something came twice"
        assert set(names) == said, f"{len(said - set(names))} of {len(said)} did not come"
        assert [message["id"] for message in messages] == order
        for speaker in people:
            numbers = [int(each.split(":")[1]) for each in names if each.startswith(speaker.name)]
            assert numbers == sorted(numbers), "out of order"
