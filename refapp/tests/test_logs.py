"""The log: JSON from every logger, no secrets, and no request that waits for who reads it."""

import json
import logging
import os
import re
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import pytest
import services
from conftest import ADMIN_PASSWORD, JWT_KEY, make_environ
from host import Host
from refapp.log_queue import DroppingQueueHandler
from refapp.logs import JSONFormatter
from refapp.redact import Redactor


@pytest.fixture
def web(environ, directory):
    server = Host(directory, environ)
    server.start()
    yield server
    if server.process.poll() is None:
        server.stop()


def test_a_request_has_its_id_user_and_time_wherever_it_is_logged(web):
    tokens = web.login("admin", ADMIN_PASSWORD)
    bearer = {"Authorization": f"Bearer {tokens['access_token']}", "X-Request-ID": "r-1"}
    web.post("/sales", json={"item": "log", "amount": 1}, headers=bearer)
    web.stop()
    [line] = [line for line in web.lines if line.get("request_id") == "r-1"]
    assert (line["logger"], line["user"], line["status"]) == ("refapp.access", "admin", 201)
    assert (line["method"], line["path"]) == ("POST", "/sales")
    assert line["duration_ms"] > 0
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])


def test_the_last_line_is_written_before_the_process_ends(web):
    for n in range(50):
        web.get("/livez", headers={"X-Request-ID": f"last-{n}"})
    web.stop()
    seen = {line.get("request_id") for line in web.lines}
    assert {f"last-{n}" for n in range(50)} <= seen


def test_no_secret_is_in_the_log(web, environ, redis_server):
    """Everything that knows a secret is done, well and badly; then the log is searched."""
    login = {"username": "admin", "password": ADMIN_PASSWORD}
    tokens = web.login(**login)
    access, refresh = tokens["access_token"], tokens["refresh_token"]
    bearer = {"Authorization": f"Bearer {access}"}
    secrets = [ADMIN_PASSWORD, "mistyped-password", JWT_KEY, JWT_KEY[::-1], access, refresh]
    secrets += [environ[f"REFAPP_{name}"] for name in ("SECRET_KEY", "S3_SECRET_KEY")]
    secrets += [services.PASSWORD, "$argon2"]

    web.post("/auth/login", json=login | {"password": "mistyped-password"})
    web.post("/auth/login", json=login | {"extra": "mistyped-password"})
    web.post("/auth/login", data='{"password": "mistyped-password"')
    web.post("/users", json={"username": "admin", "password": "mistyped-password"}, headers=bearer)
    answer = web.post("/auth/refresh", headers={"Authorization": f"Bearer {refresh}"})
    secrets += [answer.json()["access_token"], answer.json()["refresh_token"]]
    web.get(f"/whoami?token={access}")
    web.get(f"/nothing/{access}")
    page = web.get("/login")
    secrets += [re.search(r'name="csrf_token" value="([^"]+)"', page.text)[1]]
    secrets += [page.cookies["__Host-session"], "the-id-of-a-session"]
    made = web.post(
        "/uploads",
        json={"filename": "a", "content_type": "text/plain", "size": 1},
        headers=bearer,
    ).json()
    secrets += parse_qs(urlsplit(made["upload"]["url"]).query)["X-Amz-Signature"]
    redis_server.stop()
    web.get("/account", cookies={"__Host-session": "the-id-of-a-session"})
    redis_server.start()
    web.post("/auth/logout", json={}, headers=bearer)
    web.stop()
    assert len(web.lines) > 12
    assert [secret for secret in secrets if secret in web.log] == []


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJI.eyJmcmVzaCI6.8zl-OYNQzM8",
        "?next=%2F%3Ftoken%3DeyJhbGciOiJI.eyJmcmVzaCI6.8zl-OYNQzM8",
        "a line\neyJhbGciOiJI.eyJmcmVzaCI6.8zl-OYNQzM8",
        "\u201ceyJhbGciOiJI.eyJmcmVzaCI6.8zl-OYNQzM8",
        "postgresql://user:pa$$w0rd@db1/refapp",
        "Authorization: Bearer abcdefghijkl==",
        "https://s/b?X-Amz-Signature=0123456789abcdef&x=1",
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA",
        'known "secret"',
    ],
)
def test_what_looks_like_a_secret_is_hidden(text):
    redact = Redactor()
    redact.know(['known "secret"', "a", None])
    line = json.dumps({"message": f"before {text} after"})
    said = json.loads(redact(line))["message"]
    assert said.startswith("before ")
    assert said.endswith((" after", "&x=1 after"))
    assert "[hidden]" in said
    assert text not in said


@pytest.mark.parametrize("text", ["GET /sales/total?item=item-1", "https://site/path", "bearer"])
def test_what_does_not_is_not(text):
    assert Redactor()(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        *("eyJ-", "eyJaaaa", "eyJaaaa.", "eyJaaaa.eyJ", "a.eyJaaaa", "://", "://a:", "a:b@"),
        *("X-Amz-Signature=", "bearer ", "Bearer a", "basic ", "$argon2", "$argon2a", "$argon2a$"),
    ],
)
def test_no_line_takes_long_to_look_through(piece):
    """Nothing else of its process runs meanwhile, and anybody may ask for such an address."""

    def took(piece):
        line, redact, times = (
            json.dumps({"path": "/" + piece * (16_000 // len(piece))}),
            Redactor(),
            [],
        )
        for _ in range(5):
            began = time.thread_time()
            redact(line)
            times.append(time.thread_time() - began)
        return min(times)

    assert took(piece) < 10 * took("plain/")


THIRD_PARTIES = """
import logging, sys, threading, warnings
from refapp import logs
for name in ("gunicorn.error", "gunicorn.access", "werkzeug", "sqlalchemy.engine", "alembic"):
    logging.getLogger(name).addHandler(logging.StreamHandler())
    logging.getLogger(name).propagate = False
logs.configure()
for name in ("gunicorn.error", "gunicorn.access", "werkzeug", "sqlalchemy.engine", "alembic"):
    logging.getLogger(name).warning("from %s", name)
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("at the end")
"""


def run(script, **options):
    return subprocess.run(
        [sys.executable, "-c", script],
        env=make_environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_third_parties_and_what_nobody_caught_are_logged_the_same_way():
    done = run(THIRD_PARTIES)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == [
        "gunicorn.error", "werkzeug", "sqlalchemy.engine", "alembic",  # not gunicorn.access
        "py.warnings", "refapp.logs", "refapp.logs",
    ]  # fmt: skip
    assert "ZeroDivisionError" in lines[5]["exception"]
    assert "ValueError: at the end" in lines[6]["exception"]


FORKS = """
import logging, multiprocessing, os, sys
from refapp import logs
logs.configure()
log = logging.getLogger("test")
def child(n):
    log.warning("child %s", n)
if __name__ == "__main__":
    # Forked while the parent's thread writes, again and again.
    for n in range(30):
        for _ in range(20):
            log.warning("parent")
        if n % 2:
            process = multiprocessing.get_context("fork").Process(target=child, args=[n])
            process.start()
            process.join(20)
            assert process.exitcode == 0, process.exitcode
        elif (pid := os.fork()):
            assert os.waitpid(pid, 0)[1] == 0
        else:
            child(n)
            sys.exit(0)
"""


def test_forked_processes_log_too():
    done = run(FORKS)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    said = [line["message"] for line in lines if line["logger"] == "test"]
    assert sorted(m for m in said if m != "parent") == sorted(f"child {n}" for n in range(30))
    assert said.count("parent") == 600


def test_a_record_is_written_as_it_was_when_it_was_logged():
    class Slow(logging.Handler):
        def emit(self, record):
            time.sleep(0.05)
            lines.append(JSONFormatter().format(record))

    lines, mutable = [], ["before"]
    handler = DroppingQueueHandler(Slow())
    handler.handle(logging.makeLogRecord({"msg": "first"}))
    handler.handle(logging.makeLogRecord({"msg": "%s", "args": (mutable,)}))
    mutable[0] = "after"
    handler.flush()
    assert json.loads(lines[1])["message"] == "['before']"


def test_a_reader_that_stopped_stops_no_request(environ, directory):
    """The journal hangs: nobody reads the pipe, far more is logged than fits anywhere."""
    read, write = os.pipe()
    script = """
import logging, time
from refapp import logs
logs.configure()
log = logging.getLogger("test")
slowest = 0
for n in range(30_000):
    began = time.perf_counter()
    log.warning("x" * 100)
    slowest = max(slowest, time.perf_counter() - began)
print(slowest, logs.queued.dropped, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=make_environ(),
        stdout=subprocess.PIPE,
        stderr=write,
        text=True,
    )
    os.close(write)
    slowest, dropped = process.stdout.readline().split()
    # What fits: the queue, and the pipe's 64 KiB.
    assert 30_000 - 10_000 - 1000 < int(dropped) < 20_001
    assert float(slowest) < 1, "not one call waited for the reader"
    # It ends although what is left can't be written.
    assert process.wait(20) == 0
    os.close(read)


def test_what_was_dropped_is_reported_when_there_is_room():
    lines = []

    class Slow(logging.Handler):
        def emit(self, record):
            time.sleep(0.02)
            lines.append(json.loads(JSONFormatter().format(record)))

    handler = DroppingQueueHandler(Slow(), room=5)
    told = []
    handler.on_drop = lambda: told.append(1)
    for n in range(50):
        handler.handle(logging.makeLogRecord({"msg": f"m{n}"}))
    handler.flush()
    time.sleep(0.1)
    reported = sum(line.get("dropped", 0) for line in lines)
    written = sum(line["message"].startswith("m") for line in lines)
    assert reported == handler.dropped == len(told) > 0
    assert reported + written == 50
