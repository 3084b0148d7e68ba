"""Tiers of three: what is handed over, lost or restarted under load fails nothing."""

import json
import secrets
import time

import pytest

from tests.fleet.changes import Meanwhile, change_under_load, in_step, needs_three
from tests.fleet.support import eventually, play, podman


@pytest.fixture(scope="module", autouse=True)
def of_three(fleet):
    needs_three(fleet)


def since(fleet):
    """When PostgreSQL was started, on each host."""
    ask = "cd /; runuser -u postgres -- psql -XAtc 'SELECT pg_postmaster_start_time()'"
    return {host: fleet.ssh(host, ask) for host in fleet.groups["db"]}


def test_a_check_says_who_would_take_over_and_changes_nothing(fleet):
    led = fleet.leader()
    done = play("switchover.yml", "--check")
    assert f"{led} would hand over to" in done.output
    assert fleet.leader() == led


def test_a_switchover_of_postgresql_fails_no_request(fleet):
    eventually(lambda: in_step(fleet), 60)
    led = fleet.leader()
    heir = next(host for host in fleet.groups["db"] if host != led)
    with change_under_load(fleet) as load:
        play("switchover.yml", "-e", f"to={heir}")
        assert fleet.leader() == heir
    assert load.report["latency"]["max"] < 5, load.summary
    eventually(lambda: in_step(fleet), 60)


def test_a_switchover_to_a_standby_that_is_not_in_step_is_refused(fleet):
    led = fleet.leader()
    lost = next(host for host in fleet.groups["db"] if host != led)
    try:
        fleet.ssh(lost, "systemctl stop patroni")
        eventually(lambda: lost not in members_in_step(fleet, led), 30)
        done = play("switchover.yml", "-e", f"to={lost}", code=None)
        assert done.code != 0
        assert f"{lost} is not in step" in done.output
        assert "handed over" not in done.output
        assert fleet.leader() == led
    finally:
        fleet.ssh(lost, "systemctl start patroni")
    eventually(lambda: in_step(fleet), 60)


def members_in_step(fleet, host):
    said = fleet.ssh(host, f"curl -fsS -m 5 http://{fleet.addresses[host]}:8008/cluster")
    return {m["name"] for m in json.loads(said)["members"] if m["role"] == "quorum_standby"}


def test_etcd_is_led_from_another_host_than_postgresql(fleet):
    def apart():
        host = fleet.leader()
        endpoint = f"http://{fleet.addresses[host]}:2379"
        said = json.loads(
            fleet.ssh(host, f"etcdctl --endpoints={endpoint} endpoint status -w json")
        )
        status = said[0]["Status"]
        return status["leader"] != status["header"]["member_id"]

    eventually(apart, 20)


@pytest.mark.full
def test_a_setting_rolls_over_standbys_first(fleet):
    """shared_buffers follows from the memory, and needs a restart of every member."""
    eventually(lambda: in_step(fleet), 60)
    led, before = fleet.leader(), since(fleet)
    try:
        with change_under_load(fleet):
            play("site.yml", "--limit", "db", "-e", "postgresql_memory_mb=800")
        after = since(fleet)
        assert all(after[host] > before[host] for host in before), "not restarted"
        assert fleet.leader() != led
        assert after[led] == max(after.values()), "who led is restarted last"
    finally:
        play("site.yml", "--limit", "db")
    eventually(lambda: in_step(fleet), 60)


@pytest.mark.full
def test_a_setting_of_the_object_store_rolls_and_fails_no_upload(fleet):
    """Each member's proxy restarts behind a drain, and serves before the next one's turn."""

    def started():
        show = "systemctl show -p ActiveEnterTimestampMonotonic --value swift-proxy"
        return {host: fleet.ssh(host, show) for host in fleet.groups["storage"]}

    before, mix = started(), "app=2,write=1,object=3,file=4"
    try:
        with change_under_load(fleet, prove=False, mix=mix, rate=20, clients=100) as load:
            # From 0.1: of all that object-server.conf says the least that can be changed.
            play("site.yml", "--limit", "storage", "-e", "__swift_conn_timeout=0.2")
        after = started()
        assert all(after[host] != before[host] for host in before), "not restarted"
        assert load.report["failed"] == 0, load.summary
        assert load.report["counts"]["object"] > 100
        assert load.report["missing"] == []
        for host in before:
            assert "evenkeel_drain" not in fleet.ssh(host, "nft list tables")
    finally:
        play("site.yml", "--limit", "storage")
    again = play("site.yml", "--limit", "storage")
    assert again.changed == {}, again.log


class Writer(Meanwhile):
    """Sends numbered messages, one after the other, and keeps what was acknowledged."""

    pause = 0.02

    def __init__(self, fleet, client):
        self.fleet, self.client = fleet, client
        self.mark, self.number, self.kept, self.refused = secrets.token_hex(4), 0, {}, 0

    def __enter__(self):
        last = self.client.get(f"{self.fleet.url}/messages?limit=1", timeout=5).json()["messages"]
        self.begin = last[-1]["id"] if last else "0-0"
        return super().__enter__()

    def step(self):
        self.number += 1
        text = f"{self.mark} {self.number}"
        try:
            answer = self.client.post(f"{self.fleet.url}/messages", json={"text": text},
                                      headers={"Idempotency-Key": secrets.token_hex(16)},
                                      timeout=5)  # fmt: skip
        except OSError:
            self.refused += 1
            return
        if answer.status_code == 201:
            self.kept[answer.json()["id"]] = text
        else:
            self.refused += 1

    def found(self):
        """All messages since the beginning, by id."""
        found, after = {}, self.begin
        while True:
            page = self.client.get(
                f"{self.fleet.url}/messages?after={after}&limit=100", timeout=5
            ).json()["messages"]
            if not page:
                return found
            found |= {each["id"]: each["text"] for each in page}
            after = page[-1]["id"]


def test_a_switch_of_redis_loses_no_acknowledged_write_and_fails_no_sale(fleet, client):
    led = fleet.primary()
    with change_under_load(fleet), Writer(fleet, client) as writer:
        done = play("switchover.yml", "-e", "tier=redis")
        now = fleet.primary()
    assert now != led, done.log
    assert len(writer.kept) > 50
    print(f"{len(writer.kept)} messages kept, {writer.refused} refused")
    lost = writer.kept.items() - writer.found().items()
    assert not lost
    assert fleet.redis(led, "INFO replication").find("role:slave") > 0
    status = play("status.yml")
    assert "Unwell" not in status.output


@pytest.mark.full
@pytest.mark.parametrize("tier", ["db", "redis", "cache", "storage", "lb"])
def test_a_rolling_restart_of_a_tier_fails_no_request(fleet, tier):
    unit = {"db": "patroni", "redis": "redis-server", "storage": "swift-proxy"}.get(tier, "nginx")

    def started():
        show = f"systemctl show -p ActiveEnterTimestampMonotonic --value {unit}"
        return {host: fleet.ssh(host, show) for host in fleet.groups[tier]}

    before = started()
    # Whoever restarts a balancer closes the connections of its clients.
    with change_under_load(fleet, prove=tier != "lb"):
        play("restart.yml", "-e", f"tier={tier}")
    after = started()
    assert all(after[host] != before[host] for host in before)
    for host in fleet.groups[tier]:
        assert "evenkeel_drain" not in fleet.ssh(host, "nft list tables")


def page(fleet, item):
    answer = fleet.get(f"/sales/total?item={item}")
    assert answer.status_code == 200, answer.text
    return answer.headers.get("X-Cache")


def test_the_share_of_a_lost_cache_moves_to_the_other(fleet):
    hosts, items = fleet.groups["cache"], [f"item-{n}" for n in range(1, 25)]
    assert len(hosts) > 1

    def holders():
        """Which cache was asked for each item, from the caches' logs."""
        found = {}
        for host in hosts:
            log = fleet.ssh(host, "cat /var/log/nginx/cache.log")
            for line in log.splitlines()[-2000:]:
                uri = json.loads(line)["uri"]
                if mark in uri:
                    found.setdefault(uri, set()).add(host)
        return found

    mark = f"&mark={secrets.token_hex(4)}"
    for item in items * 2:
        fleet.get(f"/sales/total?item={item}{mark}")
    asked = holders()
    assert len(asked) == len(items)
    assert all(len(found) == 1 for found in asked.values()), "an object is stored once"
    assert set().union(*asked.values()) == set(hosts), "every cache has a share"

    lost = hosts[0]
    with change_under_load(fleet) as load:
        try:
            podman("stop", "-t", "0", lost)
            time.sleep(1)
            seen = [page(fleet, item) for _ in range(3) for item in items]
        finally:
            podman("start", lost)
    assert all(seen), "a page did not come from a cache"
    assert seen.count("HIT") > len(items)
    assert load.report["latency"]["max"] < 4, load.summary
    eventually(lambda: "active" in fleet.ssh(lost, "systemctl is-active nginx"), 30)
