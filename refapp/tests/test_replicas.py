"""What a failover could take back is neither acknowledged nor shown to anyone."""

import shutil
import time
import uuid

import jwt as pyjwt
import pytest
import redis as client_library
import services
from conftest import ADMIN_PASSWORD, build, make_environ
from refapp.auth import standing
from refapp.extensions import redis
from refapp.redis import AwayError
from refapp.streams import BEGINNING, Follower

from refapp import messages


class Replica(services.Process):
    """A copy of a primary."""

    def __init__(self, directory, primary):
        super().__init__(directory)
        self.primary = primary
        self.command = [
            shutil.which("redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--requirepass", services.PASSWORD, "--masterauth", services.PASSWORD),
            *("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0"),
        ]

    def client(self):
        return client_library.Redis(
            port=self.port, password=services.PASSWORD, decode_responses=True
        )

    def take_over(self):
        """Replace the primary, which dies, with what was last saved here, and nothing later."""
        self.primary.kill()
        self.kill()  # with what its kernel had received for it
        self.start()
        with self.client() as client:
            client.replicaof("NO", "ONE")
        sentinel = client_library.Redis(port=self.primary.sentinel.port, password=services.PASSWORD)
        with sentinel:
            for order in (
                "REMOVE evenkeel",
                f"MONITOR evenkeel 127.0.0.1 {self.port} 1",
                f"SET evenkeel auth-pass {services.PASSWORD}",
            ):
                sentinel.execute_command("SENTINEL", *order.split())


@pytest.fixture
def tier(directory, monkeypatch):
    """A primary with a replica, as a tier that refuses writes without one."""
    primary = services.Redis(directory / "primary")
    primary.start()
    replica = Replica(directory / "replica", primary)
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


def test_a_failover_does_not_undo_a_logout(tier, session_environ, monkeypatch):
    """The primary has it, and answers; the replica that follows it has only the older "yes"."""
    sentinels = f"127.0.0.1:{tier.primary.sentinel.port}"
    app = build(monkeypatch, session_environ | {"REFAPP_REDIS_SENTINELS": sentinels})
    client = app.test_client()
    who = {"username": "admin", "password": ADMIN_PASSWORD}
    token = client.post("/auth/login", json=who).json["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    address = f"/uploads/{uuid.uuid4()}"
    assert client.get(address, headers=bearer).status_code == 404
    key = standing.key(pyjwt.decode(token, options={"verify_signature": False})["login"])
    with tier.client() as replica:
        eventually(lambda: replica.get(key) == "yes")
        replica.save()
    tier.freeze()
    started = time.monotonic()
    assert client.post("/auth/logout", json={}, headers=bearer).status_code == 204
    assert time.monotonic() - started < 2
    tier.take_over()
    with tier.client() as primary:
        eventually(lambda: primary.get(key) == "no")
    time.sleep(1.1)  # until this process asks Redis again
    assert client.get(address, headers=bearer).status_code == 401
    app.extensions["database"].engine.dispose()


def eventually(check, seconds=10):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)
