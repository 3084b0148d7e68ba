"""What a failover could take back is neither acknowledged nor shown to anyone."""

import shutil
import time
import uuid

import pytest
import redis as client_library
import services
from conftest import build, make_environ
from refapp.extensions import redis
from refapp.redis import AwayError
from refapp.streams import BEGINNING, Follower

from refapp import messages


class Replica(services.Process):
    """A copy of a primary."""

    def __init__(self, directory, primary):
        super().__init__(directory)
        self.command = [
            shutil.which("redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--requirepass", services.PASSWORD, "--masterauth", services.PASSWORD),
            *("--replicaof", "127.0.0.1", str(primary), "--repl-diskless-sync-delay", "0"),
        ]


@pytest.fixture
def tier(directory, monkeypatch):
    """A primary with a replica, as a tier that refuses writes without one."""
    primary = services.Redis(directory / "primary")
    primary.start()
    replica = Replica(directory / "replica", primary.port)
    replica.start()
    with client_library.Redis(port=primary.port, password=services.PASSWORD) as client:
        deadline = time.monotonic() + 20
        while client.info("replication").get("slave0", {}).get("state") != "online":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        client.config_set("min-replicas-to-write", 1)
    sentinels = f"127.0.0.1:{primary.sentinel.port}"
    build(monkeypatch, make_environ(REFAPP_REDIS_SENTINELS=sentinels))
    yield replica
    replica.thaw()
    for server in (primary.sentinel, replica, primary):
        server.stop()


def send(text):
    return messages.add("someone", "someone", text, text)


def test_a_message_is_acknowledged_when_a_replica_has_it(tier):
    send("first")
    tier.freeze()
    with pytest.raises(AwayError):
        send("second")
    tier.thaw()
    time.sleep(1.1)  # Redis is left alone for a second after a failure
    # The primary had it; sent again it is not doubled, and now it is sure.
    assert send("second")[1]
    assert [each["text"] for each in messages.latest(10)] == ["first", "second"]


def test_a_message_is_shown_when_a_replica_has_it(tier):
    stream, shown = f"test:{uuid.uuid4().hex}", []
    Follower(redis, stream, lambda: shown[-1][0] if shown else BEGINNING, shown.extend).start()

    def add(text):
        redis.run(lambda client: client.xadd(stream, {"text": text}))

    def texts():
        return [values["text"] for _, values in shown]

    add("first")
    eventually(lambda: texts() == ["first"])
    tier.freeze()
    add("second")
    time.sleep(1.5)
    assert texts() == ["first"], "a failover now would lose what was shown"
    tier.thaw()
    eventually(lambda: texts() == ["first", "second"])


def eventually(check, seconds=10):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)
