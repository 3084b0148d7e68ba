"""Hosts with a real-time server each, and people on them."""

import asyncio
import socket
import tempfile
import uuid
from pathlib import Path

import pytest
import redis
from conftest import make_environ, make_token
from people import Person
from services import PASSWORD
from web import Web


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
