"""The real server on a shared socket: crashes and handovers drop nothing."""

import json
import os
import signal
import socket
import threading
import time

from web import WORKERS

# The longest that a balancer keeps an idle connection to an app.
IDLE = 2.9


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
        pauses = [0, 0.02, 0.5, 1.5, 2.2, 2.5, 2.7, IDLE]
        self._threads = [
            threading.Thread(target=self._run, args=(port, pauses[n % len(pauses)], n % 4 == 1))
            for n in range(24)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, port, pause, fresh):
        client = Client(port)
        while not self._stop.wait(pause):
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


def test_a_handover_on_one_socket_drops_nothing(listener, start):
    old = start("release-0")
    load = Load(listener.getsockname()[1])
    time.sleep(1)
    for n in (1, 2):
        new = start(f"release-{n}")
        assert old.stop() == 0, old.read_log()
        old = new
    time.sleep(0.5)
    load.stop()
    assert load.failures == []
    assert load.count > 500
    assert load.releases == {"release-0", "release-1", "release-2"}


def pids(port):
    found = set()
    for _ in range(60):
        found.add(json.loads(Client(port).get("/whoami")[1])["pid"])
        if len(found) == WORKERS:
            break
    return found


def test_a_killed_worker_is_replaced_and_logged(listener, start):
    web = start("release-0")
    port = listener.getsockname()[1]
    victim = min(pids(port))
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while len(now := pids(port) - {victim}) < WORKERS:
        assert time.monotonic() < deadline, now
    lines = [json.loads(line) for line in web.read_log().splitlines()]
    assert any(str(victim) in line["message"] and line["level"] == "error" for line in lines)


def test_every_line_of_the_log_is_json(start):
    web = start("release-0")
    web.stop()
    for line in web.read_log().splitlines():
        assert json.loads(line)["message"]


def test_metrics_add_up_over_the_workers(listener, start):
    start("release-0")
    port = listener.getsockname()[1]
    pids(port)
    for _ in range(20):
        Client(port).get("/sales/not-there")
    text = Client(port).get("/metrics")[1].decode()
    [line] = [line for line in text.splitlines() if 'route="none",status="404"' in line]
    assert float(line.split()[-1]) == 20


def test_leaves_no_files(start):
    web = start("release-0")
    assert list(web.runtime.iterdir())
    web.stop()
    assert list(web.runtime.iterdir()) == []
