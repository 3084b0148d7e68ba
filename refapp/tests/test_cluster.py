"""One gunicorn as a cluster: workers crash, come and go, and the site stays."""

import asyncio
import collections
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from amounts import amount
from conftest import build, make_environ
from selling import eventually
from services import send
from web import Load, hammer


@pytest.fixture
def environ():
    """Nothing that the other parts of the application need is there."""
    return make_environ()


def control(web, command):
    """Give a running gunicorn an order, as an operator does."""
    # Made once the workers are there, and anew after each fork.
    eventually(lambda: [*web.runtime.glob("*.ctl")], 20)
    # A test's name is part of the path, which may have 107 characters.
    [path] = web.runtime.glob("*.ctl")
    tool = Path(sys.executable).with_name("gunicornc")
    done = subprocess.run(
        [tool, "-s", path, "-c", command], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout


def spread(web):
    """Count the answers of each process to a second of requests.

    On fresh connections: kept ones stay with the worker that took them, often the same.
    """
    bodies, failed = asyncio.run(hammer(web.port, connections=60, seconds=1, kept=False))
    assert failed == 0
    return collections.Counter(json.loads(body)["pid"] for body in bodies)


def test_whoami_shows_every_worker(start):
    web = start("release-0", workers=4)
    eventually(lambda: spread(web).keys() == set(web.workers()), 20)


def test_live_scaling(start):
    web = start("release-0", workers=2)
    master = web.process.pid
    load = Load(web.port)
    for command, count in (("worker add 2", 4), ("worker remove 3", 1), ("worker add 1", 2)):
        control(web, command)
        eventually(lambda n=count: len(web.workers()) == n, 20)
        eventually(lambda: spread(web).keys() == set(web.workers()), 20)
    load.stop()
    assert web.process.pid == master
    assert web.process.poll() is None
    assert load.failures == []
    assert load.count > 200


def test_a_reload_replaces_every_worker_and_drops_nothing(start):
    web = start("release-0", workers=2)
    before = set(web.workers())
    load = Load(web.port)
    time.sleep(2)
    web.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(web.workers()) == 2 and not before & set(web.workers()), 40)
    time.sleep(2)
    load.stop()
    assert load.failures == []
    assert load.count > 100


def test_a_crash_costs_one_worker_and_is_logged(start):
    web = start("release-0", changes={"APP_ENV": "development"}, workers=2)
    eventually(lambda: len(web.workers()) == 2, 10)
    before = set(web.workers())
    with pytest.raises(ConnectionError):
        send("POST", f"http://127.0.0.1:{web.port}/crash")
    eventually(lambda: len(web.workers()) == 2 and set(web.workers()) != before, 10)
    [victim] = before - set(web.workers())
    eventually(lambda: spread(web).keys() == set(web.workers()), 20)
    lines = [json.loads(line) for line in web.read_log().splitlines()]
    assert [line for line in lines if str(victim) in line["message"] and line["level"] == "error"]


@pytest.mark.parametrize("env", ["production", "staging", ""])
def test_nobody_can_crash_production(monkeypatch, env):
    app = build(monkeypatch, make_environ(APP_ENV=env))
    client = app.test_client()
    assert client.post("/crash").status_code == 404
    assert "/crash" not in client.get("/openapi.json").json["paths"]


class Reaper:
    """Crashes each worker at a random moment within `within` seconds of its start."""

    def __init__(self, web, within):
        self.crashes = 0
        self._web, self._within = web, within
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        due = {}
        while not self._stop.wait(0.02):
            for pid in self._web.workers():
                due.setdefault(pid, time.monotonic() + random.uniform(0, self._within))
            for pid in [pid for pid, when in due.items() if when < time.monotonic()]:
                subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
                self.crashes += 1
                del due[pid]


def test_workers_that_die_all_the_time_cost_what_they_were_at(start):
    """Without a balancer, which would repeat them, the requests of a dying worker are lost."""
    web = start("release-0", workers=4)
    seconds = amount(5, 10)
    with Reaper(web, within=seconds) as reaper:
        bodies, failed = asyncio.run(hammer(web.port, connections=200, seconds=seconds + 1))
    ratio = len(bodies) / (len(bodies) + failed)
    print(f"{reaper.crashes} crashes: {failed} of {len(bodies) + failed} failed, {ratio:.2%} good")
    assert reaper.crashes >= 4
    # A worker can't lose more than the connections that it has.
    assert failed <= reaper.crashes * 200
    assert ratio > 0.5
    eventually(lambda: len(web.workers()) == 4, 10)
    eventually(lambda: spread(web).keys() == set(web.workers()), 20)
