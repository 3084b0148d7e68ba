"""A setting changed anywhere is in effect everywhere, within a second."""

import http.client
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ADMIN_PASSWORD, forget_settings, make_token
from refapp.auth import standing
from refapp.extensions import redis
from web import WORKERS
from workers import eventually


@pytest.fixture(autouse=True)
def _as_declared(redis_server):
    yield
    forget_settings(redis_server)


def put(client, name, value, headers):
    return client.put(f"/settings/{name}", json={"value": value}, headers=headers)


def test_a_change_is_in_effect_where_it_was_made(client, bearer):
    before = client.get("/settings", headers=bearer).json
    assert {each["name"]: each["value"] for each in before["settings"]} == {
        "banner": "",
        "messages_open": True,
        "log_level": "INFO",
    }
    answer = put(client, "banner", "Closed <b>today</b>", bearer)
    assert (answer.status_code, answer.json["value"]) == (200, "Closed <b>today</b>")
    after = client.get("/settings", headers=bearer).json
    assert after["version"] == before["version"] + 1
    assert "Closed &lt;b&gt;today&lt;/b&gt;" in client.get("/").text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("banner", 7),
        ("banner", None),
        ("banner", "x" * 201),
        ("banner", "a\nb"),
        ("messages_open", "false"),
        ("messages_open", 1),
        ("log_level", "LOUD"),
    ],
)
def test_a_wrong_value_is_refused_and_named(client, bearer, name, value):
    answer = put(client, name, value, bearer)
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    assert answer.json["errors"]["json"]["value"]


def test_only_declared_settings_exist(client, bearer):
    assert put(client, "nothing", 1, bearer).status_code == 404
    answer = client.put("/settings/banner", json={"valve": 1}, headers=bearer)
    assert set(answer.json["errors"]["json"]) == {"valve", "value"}


def test_settings_are_for_admins(client, sql, item):
    sql(
        "INSERT INTO users (id, username, password_hash) SELECT gen_random_uuid(), %s, "
        "password_hash FROM users WHERE username = 'admin'",
        item,
    )
    login = client.post("/auth/login", json={"username": item, "password": ADMIN_PASSWORD})
    user = {"Authorization": f"Bearer {login.json['access_token']}"}
    for headers, status in (({}, 401), (user, 403)):
        assert client.get("/settings", headers=headers).status_code == status
        assert put(client, "banner", "x", headers).status_code == status


def test_messages_can_be_closed(client, bearer, sql, item):
    test_settings_are_for_admins(client, sql, item)  # makes a user
    login = client.post("/auth/login", json={"username": item, "password": ADMIN_PASSWORD})
    user = {"Authorization": f"Bearer {login.json['access_token']}"}
    for is_open, status in ((True, 201), (False, 403)):
        put(client, "messages_open", is_open, bearer)
        answer = client.post("/messages", json={"text": "x"}, headers=user)
        assert answer.status_code == status
    assert client.post("/messages", json={"text": "x"}, headers=bearer).status_code == 201


def test_who_read_before_a_change_does_not_undo_it(app, client, bearer, monkeypatch):
    """The thread that follows has read the older value, and comes to use it after the change."""
    settings = app.extensions["settings"]
    run, read = redis.run, threading.Event()

    def slow_at_first(command):
        found = run(command)
        if not read.is_set():
            read.set()
            time.sleep(1)
        return found

    monkeypatch.setattr(redis, "run", slow_at_first)
    with ThreadPoolExecutor() as pool:
        follower = pool.submit(settings.load)
        read.wait()
        assert put(client, "banner", "newer", bearer).status_code == 200
        follower.result()
    assert settings["banner"] == "newer"


def test_without_redis_a_change_is_refused_and_settings_are_as_declared(lonely, monkeypatch):
    client = lonely.test_client()
    # So that what is missed is Redis alone.
    monkeypatch.setattr(standing, "stands", lambda login: True)
    headers = {"Authorization": f"Bearer {make_token('admin', roles=['admin'])}"}
    answer = put(client, "banner", "x", headers)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert client.get("/settings", headers=headers).json["version"] == 0


class Fleet:
    """Two servers of two processes each, on one socket."""

    def __init__(self, start, port, bearer):
        self.servers = [start(f"app{n}", changes={"APP_HOST": f"app{n}"}) for n in range(2)]
        self._port, self._headers = port, bearer

    def ask(self, method="GET", path="/settings", body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        headers = self._headers | {"Content-Type": "application/json"}
        connection.request(method, path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found

    def change(self, name, value):
        status, answer = self.ask("PUT", f"/settings/{name}", {"value": value})
        assert status == 200, answer

    def versions(self):
        """Return the version in effect in each process."""
        found = {}
        with ThreadPoolExecutor(8) as pool:
            while len(found) < 2 * WORKERS:
                for _, answer in pool.map(lambda _: self.ask(), range(32)):
                    found[answer["instance"]] = answer["version"]
        return found

    def wait_for(self, version, seconds=20):
        deadline = time.monotonic() + seconds
        while set(found := self.versions().values()) != {version}:
            assert time.monotonic() < deadline, found


@pytest.fixture
def fleet(start, listener, bearer):
    return Fleet(start, listener.getsockname()[1], bearer)


def access_lines(server):
    return sum(line["logger"] == "refapp.access" for line in server.lines())


def test_every_process_of_every_host_has_a_change_within_a_second(fleet):
    fleet.wait_for(0)
    for number, level in enumerate(["ERROR", "INFO"], 1):
        fleet.change("log_level", level)
        time.sleep(1)
        assert set(fleet.versions().values()) == {number}
        before = [access_lines(server) for server in fleet.servers]
        fleet.versions()  # requests to every process
        time.sleep(0.5)  # the thread that writes
        after = [access_lines(server) for server in fleet.servers]
        grown = [new > old for old, new in zip(before, after, strict=True)]
        assert grown == [level == "INFO"] * 2


def test_a_process_that_was_away_has_the_value_when_it_returns(fleet):
    fleet.wait_for(0)
    away = fleet.servers[1].workers()
    for pid in away:
        os.kill(pid, signal.SIGSTOP)
    try:
        fleet.change("banner", "one")
        # Longer than a connection's timeout: they come back to one that has failed.
        time.sleep(2)
    finally:
        for pid in away:
            os.kill(pid, signal.SIGCONT)
    time.sleep(1)
    assert set(fleet.versions().values()) == {1}


def test_changes_arrive_after_redis_was_killed(fleet, redis_server):
    fleet.change("banner", "one")
    fleet.wait_for(1)
    redis_server.kill()
    time.sleep(1)
    assert set(fleet.versions().values()) == {1}, "values stay while Redis is away"
    redis_server.start()
    body = {"value": "two"}
    deadline = time.monotonic() + 10
    while fleet.ask("PUT", "/settings/banner", body)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    fleet.wait_for(2)


def test_a_new_process_has_the_value_before_anyone_changes_it(fleet, start, listener):
    fleet.change("banner", "kept")
    for server in fleet.servers:
        server.stop()
    fleet.servers = [start(f"new{n}", changes={"APP_HOST": f"new{n}"}) for n in range(2)]
    fleet.wait_for(1, 5)
    assert fleet.ask()[1]["settings"][0]["value"] == "kept"


def test_the_log_level_is_also_that_of_a_worker(client, bearer, work, submit, until):
    worker = work()
    eventually(lambda: worker.said("worker starts"))
    put(client, "log_level", "ERROR", bearer)
    time.sleep(1)
    until("done", submit())
    put(client, "log_level", "INFO", bearer)
    time.sleep(1)
    until("done", submit())
    assert len(eventually(lambda: worker.said("job ended"))) == 1
