"""The real server on a shared socket: crashes and handovers drop nothing."""

import json
import os
import signal
import socket
import time

import pytest
import requests
from web import WORKERS, Client, Load


@pytest.mark.fleet
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


def test_no_head_leaves_without_a_body(listener, start):
    """A balancer can't repeat a request of which its client has the head already."""
    start("release-0")
    for _ in range(20):
        with socket.create_connection(listener.getsockname(), 5) as connection:
            connection.sendall(b"GET /whoami HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert json.loads(body)["release"] == "release-0", head


def test_every_line_of_the_log_is_json(start):
    web = start("release-0")
    web.stop()
    lines = [json.loads(line) for line in web.read_log().splitlines()]
    assert all(line["message"] for line in lines)
    assert "refapp.access" in {line["logger"] for line in lines}
    assert "gunicorn.access" not in {line["logger"] for line in lines}


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


@pytest.mark.parametrize("size", [5_000, 12_000])
def test_what_the_balancer_lets_through_is_for_the_application(listener, start, size):
    start("release-0")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    answer = requests.get(f"{url}/sales/total?item={'x' * size}", timeout=10)
    assert (answer.status_code, list(answer.json()["errors"]["query"])) == (422, ["item"])
    assert requests.get(f"{url}/livez", headers={"Cookie": "x" * size}, timeout=10).ok


def test_what_is_not_http_gets_a_problem_too(listener, start):
    start("release-0")
    with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 10) as s:
        s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1001 + b"\r\n")
        head, _, body = s.makefile("rb").read().partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == 431
