"""A gunicorn on a port of its own, that can be started again and is asked with requests."""

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

import requests
import services
from web import ROOT


class Host(services.Process):
    """One master with its workers, the way a unit runs it."""

    def __init__(self, directory, environ, workers=2):
        # A short name: the path of a socket in it has 107 characters at most.
        self.directory = directory / f"web-{uuid.uuid4().hex[:8]}"
        self.directory.mkdir()
        self.environ = environ
        self.port = services.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.workers = workers

    def start(self):
        runtime = self.directory / "run"
        runtime.mkdir(exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", "python:refapp.gunicorn",
                 "--bind", f"127.0.0.1:{self.port}", "refapp.wsgi:app"],
                env=self.environ
                | {"WEB_CONCURRENCY": str(self.workers), "RUNTIME_DIRECTORY": str(runtime)},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        services.wait_for(self.port)
        # Every worker: one that comes up during a test would look like one that had crashed.
        deadline, answered = time.monotonic() + 60, set()
        while len(answered) < self.workers:
            answered.add(self.get("/whoami").json()["pid"])
            assert time.monotonic() < deadline, self.log

    @property
    def pids(self):
        """Its workers."""
        master = self.process.pid
        return set(Path(f"/proc/{master}/task/{master}/children").read_text().split())

    @property
    def log(self):
        return (self.directory / "log").read_text()

    @property
    def lines(self):
        """Every line that it wrote, each of which is an object."""
        return [json.loads(line) for line in self.log.splitlines()]

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=10, **options)

    def post(self, path, **options):
        return requests.post(self.url + path, timeout=10, **options)

    def login(self, username, password):
        answer = self.post("/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return answer.json()
