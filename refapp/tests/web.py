"""gunicorn as the units start it, a client that never repeats a request, and a load of those."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The longest that a balancer keeps an idle connection to an app.
IDLE = 2.9
WORKERS = 2
THREADS = 32  # of a worker, as gunicorn.py has it


class Web:
    """A gunicorn that gets its sockets the way systemd gives them."""

    def __init__(
        self,
        environ,
        listener,
        directory,
        release,
        workers=WORKERS,
        options=(),
        app="refapp.wsgi:app",
    ):
        self.port = listener.getsockname()[1]
        self.path = directory / f"{release}.sock"
        self.runtime = directory / release
        self.runtime.mkdir()
        probe = socket.socket(socket.AF_UNIX)
        probe.bind(str(self.path))
        probe.listen(16)
        # Like systemd: sockets from descriptor 3 on, for the process that is told its own pid.
        words = [sys.executable, "-m", "gunicorn", "--config", "python:refapp.gunicorn", *options]
        script = (
            f"exec 3<&{listener.fileno()} 4<&{probe.fileno()}; "
            f"LISTEN_PID=$$ exec {' '.join(words)} {app}"
        )
        self.log = (directory / f"{release}.log").open("w+")
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script],
            env=environ
            | {
                "LISTEN_FDS": "2",
                "APP_RELEASE": release,
                "WEB_CONCURRENCY": str(workers),
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

    def lines(self):
        """Return what it logged."""
        return [json.loads(line) for line in self.read_log().splitlines()]

    def workers(self):
        """Return the pids of the master's children."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self):
        self.process.terminate()
        return self.process.wait(40)


class Client:
    """A connection that is kept like a balancer's, and never repeats a request."""

    def __init__(self, port):
        self.port, self.socket = port, None

    def get(self, path):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), 10)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("closed as a request went out")
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        head = head.lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self.socket.recv(65536)
        if b"connection: close" in head:
            self.socket.close()
            self.socket = None
        return int(head.split()[1]), body


class Load:
    """Threads that send requests, some on fresh connections and some on kept, idle ones."""

    def __init__(self, port):
        self.failures, self.releases, self.count = [], set(), 0
        self._stop = threading.Event()
        self._end = time.monotonic() + 120  # whatever becomes of the test
        pauses = [0, 0.02, 0.5, 1.5, 2.2, 2.5, 2.7, IDLE]
        self._threads = [
            threading.Thread(
                target=self._run, args=(port, pauses[n % len(pauses)], n % 4 == 1), daemon=True
            )
            for n in range(24)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, port, pause, fresh):
        client = Client(port)
        while not self._stop.wait(pause) and time.monotonic() < self._end:
            try:
                status, body = client.get("/whoami")
                self.count += 1
                self.releases.add(json.loads(body)["release"])
                if status != 200:
                    self.failures.append(status)
            except (OSError, ValueError, IndexError) as error:
                self.failures.append(f"{error} ({'fresh' if fresh else f'idle {pause} s'})")
                client = Client(port)
            if fresh:
                client = Client(port)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


async def hammer(port, path="/whoami", connections=200, seconds=10.0, kept=True):
    """Keep connections busy, kept or fresh ones; return good bodies, and how many requests failed.

    A request is never repeated; after a failure its connection is opened anew.
    """
    end = time.monotonic() + seconds
    close = "" if kept else "Connection: close\r\n"
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode()
    bodies, failed = [], 0

    async def send(streams):
        reader, writer = streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if int(head.split()[1]) != 200:
            raise ConnectionError
        bodies.append(body)
        return b"connection: close" not in head

    async def run():
        nonlocal failed
        streams = None
        while time.monotonic() < end:
            again = False
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", port)
                again = await asyncio.wait_for(send(streams), 10)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                failed += 1
            if not again and streams:
                streams[1].close()
                streams = None
        if streams:
            streams[1].close()

    await asyncio.gather(*(run() for _ in range(connections)))
    return bodies, failed
