"""The real server as tests start it."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2


class Web:
    """A gunicorn that gets its sockets the way systemd gives them."""

    def __init__(self, environ, listener, directory, release, app="refapp.wsgi:app"):
        self.path = directory / f"{release}.sock"
        self.runtime = directory / release
        self.runtime.mkdir()
        probe = socket.socket(socket.AF_UNIX)
        probe.bind(str(self.path))
        probe.listen(16)
        # Like systemd: sockets from descriptor 3 on, for the process that is told its own pid.
        script = f"exec 3<&{listener.fileno()} 4<&{probe.fileno()}; LISTEN_PID=$$ exec " + (
            f"{sys.executable} -m gunicorn --config python:refapp.gunicorn {app}"
        )
        self.log = (directory / f"{release}.log").open("w+")
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script],
            env=environ
            | {
                "LISTEN_FDS": "2",
                "APP_RELEASE": release,
                "WEB_CONCURRENCY": str(WORKERS),
                "RUNTIME_DIRECTORY": str(self.runtime),
            },
            pass_fds=[listener.fileno(), probe.fileno()],
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        probe.close()
        deadline = time.monotonic() + 30
        while self.probe() != 200:
            assert self.process.poll() is None, self.read_log()
            assert time.monotonic() < deadline, self.read_log()
            time.sleep(0.1)

    def probe(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(3)
            try:
                s.connect(str(self.path))
                s.sendall(b"GET /livez HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
                return int(s.recv(4096).split()[1])
            except (OSError, IndexError):
                return None

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        self.process.terminate()
        return self.process.wait(40)

    def lines(self):
        """What it logged."""
        return [json.loads(line) for line in self.read_log().splitlines()]
