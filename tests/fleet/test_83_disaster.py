"""The worst days: every db host is lost, all but one are, or nobody leads and nobody knows why."""

import json
import re
import threading
import time
from contextlib import suppress

import pytest
import requests

from tests.fleet.changes import in_step, needs_three
from tests.fleet.support import LAB, eventually, lab, play, podman

pytestmark = pytest.mark.full

WORDS = f"replace-the-database-of-{LAB.name}"
OVERWRITE = ["-e", f"overwrite={WORDS}"]
# All that these tests do not write themselves.
REST = (
    "SELECT count(*), sum(amount), sum(hashtextextended(t::text, 0)) FROM sales t "
    "WHERE item NOT LIKE 'disaster-%';"
)
PROMISED = 90  # seconds: a segment is archived a minute after a commit at the latest


def sell(fleet, session, item):
    answer = session.post(f"{fleet.url}/sales", json={"item": item, "amount": 100}, timeout=10)
    if answer.status_code != 201:
        raise ConnectionError(answer.text)


class Writer(threading.Thread):
    """Records numbered sales, one after the other, and when each was acknowledged."""

    def __init__(self, fleet):
        super().__init__(daemon=True)
        self.fleet, self.stopped = fleet, threading.Event()
        self.run_name = f"disaster-{int(time.time())}"
        self.acknowledged = {}

    def run(self):
        with self.fleet.authorized() as session:
            for number in range(100_000):
                if self.stopped.wait(0.5):
                    return
                item = f"{self.run_name}-{number}"
                with suppress(OSError):  # requests' errors are of this kind
                    sell(self.fleet, session, item)
                    self.acknowledged[item] = time.time()

    def stop(self):
        self.stopped.set()
        self.join(30)


def members(fleet):
    host = fleet.groups["db"][0]
    answer = fleet.ssh(host, f"curl -fsS http://{fleet.addresses[host]}:8008/cluster")
    return json.loads(answer)["members"]


def whole(fleet):
    """Every member follows one leader, and every app host answers."""
    found = members(fleet)
    assert {m["name"] for m in found} == set(fleet.groups["db"])
    assert sum(m["role"] == "leader" for m in found) == 1
    assert all(m["state"] in ("running", "streaming") for m in found), found
    fleet.wait_all_answer(120)


def sells_again(fleet, seconds):
    """Return when a sale is accepted through the balancers."""

    def try_one():
        with fleet.authorized() as session:
            sell(fleet, session, f"disaster-after-{int(time.time())}")
        return True

    def once():
        with suppress(AssertionError, requests.RequestException, ConnectionError):
            return try_one()
        return False

    eventually(once, seconds)


def report(done):
    said = re.search(r"The database is back.*?stop to start", " ".join(done.output.split()))
    print(said[0])


@pytest.fixture(scope="module", autouse=True)
def backup(fleet):
    """A proved backup, and the fleet as site.yml wants it afterwards, whatever went wrong."""
    play("backup.yml", "-e", "type=full")
    yield
    play("site.yml", code=None)


def test_a_restore_works_while_nobody_leads(fleet):
    before = fleet.sql(REST)
    for host in reversed(fleet.groups["db"]):
        fleet.ssh(host, "systemctl stop patroni", timeout=120)
    # As after a restore whose end nobody saw: what ran since may be the only copy, or what is aside
    host = fleet.groups["db"][-1]
    aside = "/var/lib/postgresql/17/main.replaced"
    fleet.ssh(host, f"rm -rf {aside}; mkdir {aside}; touch -d '1 hour ago' {aside}.unended")
    try:
        refused = play("restore.yml", code=None)
        assert fleet.ssh(host, f"ls -d {aside}") == aside
    finally:
        fleet.ssh(host, f"rm -r {aside} {aside}.unended")
    assert refused.code != 0
    said = " ".join(refused.output.split())
    assert f"On {host} an earlier restore was not seen to its end" in said
    assert refused.changed == {}, refused.log
    done = play("restore.yml")  # no words: there is nothing that serves
    report(done)
    assert fleet.sql(REST) == before
    whole(fleet)
    for host in fleet.groups["db"]:
        kept = fleet.ssh(host, "test -d /var/lib/postgresql/17/main.replaced && echo kept || true")
        assert kept == "kept", f"{host} may have had the most: its data must be kept"
        fleet.ssh(host, "rm -rf /var/lib/postgresql/17/main.replaced")
    sells_again(fleet, 60)


def test_all_db_hosts_are_lost_and_all_data_comes_back(fleet):
    play("backup.yml", "-e", "type=full")  # of the timeline that there is now
    before = fleet.sql(REST)
    writer = Writer(fleet)
    writer.start()
    time.sleep(2 * PROMISED)
    # The plug first, so that none of them says goodbye.
    podman("rm", "-f", "-t", "0", "-v", *fleet.groups["db"], timeout=120)
    lost_at = time.time()
    writer.stop()
    acknowledged = {item: at for item, at in writer.acknowledged.items() if at <= lost_at}
    assert len(acknowledged) > 60, "too few writes to say anything"

    lab("up", "-i", str(LAB), "--name", "lab")
    refused = play("site.yml", code=None)
    assert refused.code != 0
    words = " ".join(refused.output.split())
    assert "holds the backups of another cluster than the one that runs" in words, refused.tail()
    assert f"-e overwrite={WORDS}" in words

    done = play("restore.yml", *OVERWRITE)
    report(done)
    sells_again(fleet, 300)
    rto = time.time() - lost_at

    assert fleet.sql(REST) == before
    written = fleet.sql(f"SELECT item FROM sales WHERE item LIKE '{writer.run_name}-%';")
    found = {item for (item,) in written}
    missing = {item: at for item, at in acknowledged.items() if item not in found}
    rpo = lost_at - min(missing.values(), default=lost_at)
    lost = f"{len(missing)} of {len(acknowledged)} acknowledged writes"
    print(f"RPO {rpo:.0f} s, {lost}; RTO {rto:.0f} s, with making the hosts anew")
    kept = [at for item, at in acknowledged.items() if item in found]
    assert kept, "none of the writes came back"
    assert max(kept) < min(missing.values(), default=lost_at + 1), "a gap in the writes"
    assert rpo < PROMISED

    play("site.yml")
    whole(fleet)
    eventually(lambda: play("status.yml", code=None).code == 0, 120, pause=5)


def test_what_came_back_is_backed_up_again(fleet):
    done = play("backup.yml", "-e", "type=full")
    assert "every page verified" in done.output
    said = play("restore_drill.yml").output
    assert re.search(r"\d+ tables, \d+ rows: the same", said)


def test_one_db_host_is_left_of_three(fleet):
    needs_three(fleet)
    eventually(lambda: in_step(fleet), 60)
    with fleet.authorized() as session:
        sell(fleet, session, "disaster-before")
    before = fleet.sql(REST)
    left = next(host for host in fleet.groups["db"] if host != fleet.leader())
    lost = [host for host in fleet.groups["db"] if host != left]
    eventually(lambda: in_step(fleet), 30)
    podman("rm", "-f", "-t", "0", "-v", *lost, timeout=120)
    lab("up", "-i", str(LAB), "--name", "lab")

    refused = play("site.yml", "--limit", "db", code=None)
    assert refused.code != 0
    said = " ".join(refused.output.split())
    assert "This host has no etcd data, others have" in said, refused.tail()
    # What the message says to type.
    assert "systemctl stop etcd && mv /var/lib/etcd/evenkeel /var/lib/etcd/lost" in said
    fleet.ssh(left, "systemctl stop etcd && mv /var/lib/etcd/evenkeel /var/lib/etcd/lost")
    play("site.yml", "--limit", "db")
    whole(fleet)
    assert fleet.sql(REST) == before
    sells_again(fleet, 60)
    eventually(lambda: play("status.yml", code=None).code == 0, 120, pause=5)
    again = play("site.yml", "--limit", "db")
    assert again.changed == {}, again.log
