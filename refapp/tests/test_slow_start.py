"""The database comes up late, or goes and comes back, under requests to real processes."""

import collections
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import services
from conftest import ADMIN_PASSWORD, make_database, make_environ, migrate
from host import Host

READ = "/sales?idempotency_key=nothing"


@pytest.fixture(scope="module")
def late(directory):
    """A migrated database on a server that this module alone stops and starts."""
    server = services.Postgres(directory / "late")
    server.start()
    server.database = make_database(server)
    process = migrate(make_environ(REFAPP_DATABASE_URL=server.database))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def start(session_environ, late, directory):
    started = []

    def start():
        environ = session_environ | {"REFAPP_DATABASE_URL": late.database}
        started.append(Host(directory, environ))
        started[-1].start()
        return started[-1]

    yield start
    for web in started:
        web.stop()


class Load:
    """Threads that read all the time, and one that looks whether the processes live."""

    def __init__(self, web):
        self.answers, self.live = [], []
        self._stop = threading.Event()
        read, look = (READ, self.answers, 0.02), ("/livez", self.live, 0.05)
        self._threads = [
            threading.Thread(target=self._run, args=(web, *what)) for what in [read] * 12 + [look]
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, web, path, answers, pause):
        while not self._stop.wait(pause):
            began = time.monotonic()
            answers.append((web.get(path), time.monotonic() - began))

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def count(self):
        return collections.Counter(answer.status_code for answer, _ in self.answers)


def assert_answered_well(load):
    """All is 200, or 503 that says when to come again, and in less than a balancer waits."""
    for answer, seconds in load.answers:
        assert answer.status_code in (200, 503), answer.text
        assert seconds < 4
        if answer.status_code == 503:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.headers["Retry-After"] == "1"
    assert {answer.status_code for answer, _ in load.live} == {200}
    assert max(seconds for _, seconds in load.live) < 1.5


def test_processes_start_before_the_database(late, start):
    late.stop()
    web = start()
    before = web.pids
    assert web.get("/readyz").json()["checks"]["database"] != "ok"
    answer = web.get(READ)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")

    # Those that ask while it comes up wait for it.
    late_start = threading.Timer(0.5, late.start)
    late_start.start()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: web.get(READ).status_code, range(8)))
    late_start.join()
    assert statuses == [200] * 8
    assert web.get("/readyz").json()["checks"]["database"] == "ok"
    assert web.login("admin", ADMIN_PASSWORD)
    assert web.pids == before, "one crashed"


@pytest.mark.parametrize("away", [0, 4], ids=["a restart", "an outage"])
def test_the_database_goes_and_comes_back(late, start, away):
    web = start()
    before = web.pids
    load = Load(web)
    time.sleep(1)
    late.stop()
    time.sleep(away)
    late.start()
    time.sleep(2)
    settled = len(load.answers)
    time.sleep(1)
    load.stop()
    assert_answered_well(load)
    assert load.count()[200] > 100
    assert {answer.status_code for answer, _ in load.answers[settled:]} == {200}
    if away:
        assert load.count()[503] > 0
    else:
        # Nearly all waited, and succeeded.
        assert load.count()[200] > 5 * load.count()[503]
    assert web.pids == before, "nothing crashed"
    assert [line for line in web.lines if line["level"] in ("error", "critical")] == []


def test_the_database_freezes_and_thaws(late, start):
    """It takes connections, and what comes on them, and never answers."""
    web = start()
    load = Load(web)
    time.sleep(1)
    late.freeze()
    time.sleep(6)
    late.thaw()
    time.sleep(2)
    settled = len(load.answers)
    time.sleep(1)
    load.stop()
    assert_answered_well(load)
    assert load.count()[503] > 0
    assert {answer.status_code for answer, _ in load.answers[settled:]} == {200}


def test_writes_with_a_key_are_recorded_once_across_a_restart(late, start):
    web = start()
    token = web.login("admin", ADMIN_PASSWORD)["access_token"]
    done = []
    stop = threading.Event()

    def sell():
        while not stop.is_set():
            key = uuid.uuid4().hex
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
            while (
                status := web.post(
                    "/sales", json={"item": "late", "amount": 1}, headers=headers
                ).status_code
            ) == 503:
                time.sleep(0.1)
            done.append((status, key))

    threads = [threading.Thread(target=sell) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    late.stop()
    late.start()
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in done} == {201}
    counts = {web.get(f"/sales?idempotency_key={key}").json()["count"] for _, key in done}
    assert counts == {1}
