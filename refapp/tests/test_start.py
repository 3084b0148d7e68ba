"""What a process says and does before, and without, anything that it needs."""

import json
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa
from conftest import ROOT, build, make_environ
from refapp.db import Unavailable
from refapp.extensions import db

from refapp import config


@pytest.mark.parametrize("name", config.REQUIRED)
def test_refuses_to_start_without(name):
    environ = make_environ()
    del environ[f"REFAPP_{name}"]
    with pytest.raises(RuntimeError, match=f"^REFAPP_{name} is not set$"):
        config.load(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REFAPP_JWT_KEYS", "not json"),
        ("REFAPP_JWT_KEYS", "{}"),
        ("REFAPP_JWT_KEYS", '{"a": "short"}'),
        ("REFAPP_REDIS_SENTINELS", "redis1"),
        ("REFAPP_DATABASE_POOL", "many"),
        ("REFAPP_JOB_GRACE", "long"),
        ("REFAPP_JOB_GRACE", "16"),
        ("REFAPP_CPU_SECONDS", "0"),
        ("REFAPP_TOTALS", "guessed"),
    ],
)
def test_refuses_a_wrong(name, value):
    with pytest.raises(RuntimeError, match=name):
        config.load(make_environ(**{name: value}))


def test_wsgi_names_the_missing_variable():
    environ = make_environ()
    del environ["REFAPP_DATABASE_URL"]
    done = subprocess.run(
        [sys.executable, "-c", "import refapp.wsgi"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "REFAPP_DATABASE_URL is not set" in done.stderr


def test_lives_without_anything(lonely):
    client = lonely.test_client()
    assert client.get("/livez").json == {"status": "live"}
    assert client.get("/whoami").json["host"] == "app1"
    assert client.get("/").status_code == 200
    assert client.get("/metrics").status_code == 200


def test_readyz_lists_what_is_not_ready(lonely):
    started = time.monotonic()
    answer = lonely.test_client().get("/readyz")
    assert time.monotonic() - started < 3
    assert answer.status_code == 503
    assert answer.json["not_ready"] == ["database", "redis", "store"]
    assert "127.0.0.1" not in answer.text


def test_waits_for_the_database_then_says_when_to_retry(lonely):
    started = time.monotonic()
    answer = lonely.test_client().get("/sales/total?item=item-1")
    assert 1 < time.monotonic() - started < 4, "the balancer gives up after 4 s"
    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "no-store"


def test_all_transactions_of_a_request_wait_together(lonely):
    started = time.monotonic()
    with lonely.test_request_context():
        for _ in range(3):
            with pytest.raises(Unavailable):
                db.run(lambda session: session.execute(sa.text("SELECT 1")), idempotent=True)
    assert 1 < time.monotonic() - started < 4, "not three times as long"


def test_development_is_loud(monkeypatch, caplog):
    app = build(monkeypatch, make_environ(APP_ENV="development"))

    @app.get("/fail")
    def fail():
        raise ValueError("inside")

    assert "development mode" in caplog.text
    assert "ValueError: inside" in app.test_client().get("/fail").json["trace"]


def test_lock_has_hashes_and_no_host_names():
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            assert "==" in line, line
            assert line.endswith("\\"), f"no hash follows: {line}"


@pytest.mark.parametrize("module", ["refapp.worker", "refapp.cron"])
def test_a_process_names_the_missing_variable_and_nothing_else(module):
    environ = make_environ()
    del environ["REFAPP_DATABASE_URL"]
    done = subprocess.run(
        [sys.executable, "-m", module], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"{module}: REFAPP_DATABASE_URL is not set"


@pytest.mark.parametrize("module", ["refapp.worker", "refapp.cron"])
def test_a_process_stays_up_and_stops_quickly_without_the_database(module):
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env=make_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(9)
    process.terminate()
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in output
    assert all(json.loads(line)["message"] for line in output.splitlines())
