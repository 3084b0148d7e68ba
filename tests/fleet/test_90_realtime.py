"""Messages and the users' count over the whole fleet, through the balancer."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fleet import talk
from tests.fleet.support import eventually


@pytest.mark.full
def test_no_message_is_lost_or_doubled_by_a_failover_of_redis(fleet, script):
    host = next(
        host
        for host in fleet.groups["redis"]
        if "role:master" in fleet.ssh(host, redis_cli(fleet, "info replication"))
    )
    with talk.talking(fleet, script, 60) as report:
        time.sleep(3)
        fleet.ssh(host, "systemctl kill --signal=KILL redis-server")
        time.sleep(15)
    talk.prove(report, 60)


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


def processes(fleet):
    """Count the processes that answer requests."""
    [release] = set(fleet.releases().values())
    command = f"pgrep -c -P $(systemctl show -p MainPID --value 'refapp-web@{release}')"
    return sum(int(fleet.ssh(host, command)) for host in fleet.groups["app"])


def test_the_users_count_costs_one_query_in_ten_seconds(fleet):
    def queries():
        hosts = fleet.groups["app"]
        return sum(metric(fleet, host, 8000, "refapp_user_counts_total") for host in hosts)

    # Nobody logs in meanwhile, or sells: only counting reads the table of users.
    scans, before, began, figures = fleet.scans("users"), queries(), time.monotonic(), set()
    asked = 0
    with ThreadPoolExecutor(12) as pool:
        while time.monotonic() - began < 21:
            answers = list(pool.map(lambda _: fleet.get("/users/count"), range(48)))
            assert {answer.status_code for answer in answers} == {200}
            figures |= {answer.json()["as_of"] for answer in answers}
            asked += len(answers)
    seconds = time.monotonic() - began
    most, needed = seconds / 10 + 1, queries() - before
    print(f"users' count: {needed:.0f} queries in {seconds:.0f} s for {asked} requests, "
          f"to {processes(fleet)} processes on {len(fleet.groups['app'])} hosts")  # fmt: skip
    assert len(figures) >= 2
    assert 2 <= needed <= most
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

    with talk.talking(fleet, script, 30):
        eventually(lambda: sum(connected()) >= 30, 10)
        assert all(count > 0 for count in connected()), "one host has all of them"
        eventually(lambda: fleet.get("/users/count").json()["online"] >= 1, 15)
