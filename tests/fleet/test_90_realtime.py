"""Messages and the users' count over the whole fleet, through the balancer."""

import json
import os
import shutil
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.fleet.support import ROOT, eventually, play

SOURCE = ROOT / "tests/fleet/realtime"
PATIENCE = 300  # seconds that the clients have for their last messages


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The clients, with the packages that their lock names."""
    target = tmp_path_factory.mktemp("realtime") / "clients"
    shutil.copytree(SOURCE, target)
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=target, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return target / "clients.js"


@pytest.fixture(scope="module")
def client(fleet):
    with fleet.session() as session:
        session.headers["Authorization"] = f"Bearer {fleet.login()['access_token']}"
        yield session


@contextmanager
def clients(fleet, script, count, every_ms=500):
    """Let people talk while the block runs; yields a dictionary that has the report after it."""
    given = {
        "url": fleet.url,
        "token": fleet.login()["access_token"],
        "clients": count,
        "every_ms": every_ms,
    }
    process = subprocess.Popen(
        ["node", str(script), json.dumps(given)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": fleet.ca},
    )  # fmt: skip
    report = {}
    try:
        assert json.loads(process.stdout.readline()) == {"joined": count}
        yield report
        output, _ = process.communicate(timeout=PATIENCE)
        report.update(json.loads(output.splitlines()[-1]))
    finally:
        process.kill()
        process.wait()


def prove(report, count):
    """Everyone heard everything once, in each speaker's order."""
    wrong = {name: report[name] for name in ("lost", "doubled", "disordered", "gaps")}
    assert wrong == dict.fromkeys(wrong, 0), report
    assert report["acknowledged"] == report["said"] > count, report
    assert report["heard"] == report["said"] * count, report


@pytest.mark.parametrize("count", [60, pytest.param(200, marks=pytest.mark.full)])
def test_no_message_is_lost_or_doubled_by_a_deploy(fleet, script, tmp_path, count):
    source = tmp_path / "refapp"
    ignored = shutil.ignore_patterns("__pycache__", "tests", ".*")
    shutil.copytree(ROOT / "refapp", source, ignore=ignored)
    with (source / "src/refapp/wsgi.py").open("a") as module:
        module.write("# messages go on\n")
    before = set(fleet.releases().values())
    with clients(fleet, script, count, every_ms=10 * count) as report:
        time.sleep(3)
        play("deploy.yml", "-e", f"release={source}")
        assert set(fleet.releases().values()) != before
        play("rollback.yml")
    assert set(fleet.releases().values()) == before
    prove(report, count)
    assert report["moved"] == count, "a client stayed on a release that is gone"
    assert report["farewells"] >= 2 * count


def test_no_message_is_lost_or_doubled_by_a_restart_behind_a_drain(fleet, script):
    with clients(fleet, script, 60) as report:
        play("restart.yml")
    prove(report, 60)


@pytest.mark.full
def test_no_message_is_lost_or_doubled_by_a_failover_of_redis(fleet, script):
    host = next(
        host
        for host in fleet.groups["redis"]
        if "role:master" in fleet.ssh(host, redis_cli(fleet, "info replication"))
    )
    with clients(fleet, script, 60) as report:
        time.sleep(3)
        fleet.ssh(host, "systemctl kill --signal=KILL redis-server")
        time.sleep(15)
    prove(report, 60)


def redis_cli(fleet, command):
    password = next(value for name, value in fleet.secrets.items() if "redis" in name)
    return f"REDISCLI_AUTH={password} redis-cli --no-auth-warning {command}"


def metric(fleet, host, port, name):
    """Return a figure of a host, summed over its processes."""
    text = fleet.ssh(host, f"curl -fsS http://127.0.0.1:{port}/metrics")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_long_polling_and_strangers_are_refused(fleet):
    polling = fleet.get("/socket.io/?EIO=4&transport=polling")
    assert polling.status_code == 400
    origin = {"Origin": "https://elsewhere.example"}
    assert fleet.get("/socket.io/?EIO=4&transport=websocket", headers=origin).status_code == 400
    assert fleet.get("/messages").status_code == 401


def test_a_message_posted_twice_is_there_once(fleet, client):
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    answers = [
        client.post(f"{fleet.url}/messages", json={"text": "once"}, headers=headers, timeout=5)
        for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [201] * 3
    [sent] = {answer.json()["id"] for answer in answers}
    latest = client.get(f"{fleet.url}/messages?limit=50", timeout=5).json()["messages"]
    assert [each["id"] for each in latest].count(sent) == 1


def test_the_users_count_costs_one_query_in_ten_seconds(fleet):
    def queries():
        hosts = fleet.groups["app"]
        return sum(metric(fleet, host, 8000, "refapp_user_counts_total") for host in hosts)

    # Nobody logs in meanwhile, or sells: only counting reads the table of users.
    scans, before, began, figures = fleet.scans("users"), queries(), time.monotonic(), set()
    with ThreadPoolExecutor(12) as pool:
        while time.monotonic() - began < 21:
            answers = list(pool.map(lambda _: fleet.get("/users/count"), range(48)))
            assert {answer.status_code for answer in answers} == {200}
            figures |= {answer.json()["as_of"] for answer in answers}
    most = (time.monotonic() - began) / 10 + 1
    assert len(figures) >= 2
    assert 2 <= queries() - before <= most
    assert 2 <= fleet.scans("users") - scans <= most


def test_clients_are_spread_and_counted(fleet, script):
    def connected():
        lines = [
            fleet.ssh(
                host, "curl -fsS http://127.0.0.1:8100/metrics | grep ^refapp_realtime_clients"
            )
            for host in fleet.groups["app"]
        ]
        return [sum(float(each.split()[-1]) for each in line.splitlines()) for line in lines]

    with clients(fleet, script, 30):
        eventually(lambda: sum(connected()) >= 30, 10)
        assert all(count > 0 for count in connected()), "one host has all of them"
        eventually(lambda: fleet.get("/users/count").json()["online"] >= 1, 15)
