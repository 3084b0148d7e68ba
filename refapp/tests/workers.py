"""Worker and cron processes of tests: real ones, that may be killed and frozen."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
import sqlalchemy as sa
from refapp.jobs import queue


class Process:
    """A process type of refapp, with what it said."""

    def __init__(self, environ, directory, name, *command, **changes):
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, *(command or ("-m", "refapp.worker"))],
                env=environ | {"APP_HOST": name, "APP_PROCESS": "worker", **changes},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def freeze(self):
        """Stop it and its children, as a host that hangs does."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self):
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self):
        """Kill it alone, without a word; its children see to themselves."""
        self._process.kill()
        self._process.wait()

    def stop(self, seconds=30):
        """Stop it as systemd does; return its exit code."""
        self._process.terminate()
        return self._process.wait(seconds)

    def alive(self):
        return self._process.poll() is None

    def children(self):
        """Pids of what its jobs run in: children of its child that forks them."""
        text = subprocess.check_output(
            ["ps", "-o", "pid=,ppid=", "-s", str(self._process.pid)], text=True
        )
        parents = {int(pid): int(parent) for pid, parent in map(str.split, text.splitlines())}
        return [
            pid
            for pid, parent in parents.items()
            if parents.get(parents.get(parent)) and pid != self._process.pid
        ]

    def end(self):
        """Leave nothing of it behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def lines(self):
        complete = [line for line in self.log.read_text().splitlines(True) if line.endswith("\n")]
        return [json.loads(line) for line in complete]

    def said(self, message):
        """What it logged with a message."""
        return [line for line in self.lines() if line["message"] == message]


def eventually(check, seconds=60):
    """Return the first true answer of `check`."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.1)
    return answer


@pytest.fixture(scope="session")
def logs(directory):
    path = directory / "workers"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def work(environ, logs, sql):
    """Start workers; afterwards nothing of them is left, and no job either."""
    started = []

    def start(name="worker1", **changes):
        started.append(Process(environ, logs, f"{name}-{uuid.uuid4().hex[:6]}", **changes))
        return started[-1]

    yield start
    for worker in started:
        worker.end()
    sql("TRUNCATE jobs, procrastinate_jobs, procrastinate_workers CASCADE")


@pytest.fixture
def submit(client, bearer):
    """Ask for a job; return what was answered."""

    def submit(kind="drill", key=None, status=202, **given):
        headers = bearer | ({"Idempotency-Key": key} if key else {})
        answer = client.post("/jobs", json={"kind": kind, **given}, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json

    return submit


@pytest.fixture
def look(client, bearer):
    """Return a job as it is now."""

    def look(job):
        answer = client.get(f"/jobs/{job['id']}", headers=bearer)
        assert answer.status_code == 200
        return answer.json

    return look


@pytest.fixture
def until(look):
    """Wait for a job to be in a state; return it."""

    def until(state, job, seconds=60):
        return eventually(lambda: (now := look(job))["state"] == state and now, seconds)

    return until


@pytest.fixture
def lose_the_database(monkeypatch, sql):
    """Have the first delivery of a job meet the end of its connection, as in a failover."""
    lost, deliver = [], queue.deliver

    def lose(session, job):
        if not lost:
            lost.append(session.scalar(sa.text("SELECT pg_backend_pid()")))
            assert sql("SELECT pg_terminate_backend(%s, 5000)", lost[0]) == [(True,)]
        return deliver(session, job)

    monkeypatch.setattr(queue, "deliver", lose)
    return lost
