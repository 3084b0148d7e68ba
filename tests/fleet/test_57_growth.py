"""Hosts that come and go under load."""

import shutil

import pytest

from tests.fleet.changes import (
    change_under_load,
    copy_of_lab,
    edit_hosts,
    forget,
    holder,
    in_step,
    needs_three,
)
from tests.fleet.support import LAB, Fleet, eventually, lab, play

NEW = {"app": "app4", "cache": "cache3", "redis": "redis4", "db": "db4", "storage": "storage4"}


def refused(*arguments, words, inventory=LAB):
    done = play("remove.yml", *arguments, inventory=inventory, code=None)
    assert done.code != 0
    assert done.changed == {}, done.log
    for word in words:
        assert word in done.output, done.log


def test_an_unknown_host_is_not_removed():
    refused("-e", "host=app77", words=["no host 'app77' in the inventory"])
    refused(words=["say -e host=<name>"])


def test_a_quorum_is_not_given_up_by_accident(fleet):
    if len(fleet.groups["db"]) != 3:
        pytest.skip("needs tiers of three")
    refused("-e", "host=db2", words=["tier db would be left with 2 hosts", "-e accept=fewer"])


def test_a_member_is_not_removed_while_another_is_away(fleet):
    if len(fleet.groups["redis"]) < 3:
        pytest.skip("needs tiers of three")
    host, other = fleet.groups["redis"][:2]
    try:
        fleet.ssh(other, "systemctl stop redis-server")
        refused("-e", f"host={host}", "-e", "accept=fewer",
                words=[f"can't spare {host} while another is unwell", other])  # fmt: skip
    finally:
        fleet.ssh(other, "systemctl start redis-server")
    eventually(lambda: play("status.yml", code=None).code == 0, 60)


def test_a_check_of_a_removal_changes_nothing(fleet):
    host = fleet.groups["app"][-1]
    done = play("remove.yml", "--check", "-e", f"host={host}")
    assert f"{host} can be spared" in done.output
    assert done.changed == {}
    fleet.wait_all_answer()


@pytest.fixture(scope="module")
def grown(fleet):
    """The lab's inventory with a host more in each of five tiers."""
    needs_three(fleet)
    inventory = copy_of_lab("grown")

    def add(tiers):
        for tier, host in NEW.items():
            first = tiers[tier]["hosts"][f"{tier}1"]["ansible_host"]
            tiers[tier]["hosts"][host] = {"ansible_host": first[:-1] + host[-1]}

    edit_hosts(inventory, add)
    lab("up", "-i", str(inventory), "--name", "lab")
    yield inventory
    lab("up", "-i", str(LAB), "--name", "lab")
    shutil.rmtree(inventory)


@pytest.mark.full
def test_hosts_are_added_under_load(fleet, grown):
    with fleet.load() as load:
        play("site.yml", inventory=grown)
        eventually(lambda: "app4" in fleet.answering()[0], 30)
    assert "app4" in load.report["hosts"]
    play("status.yml", inventory=grown)
    again = play("site.yml", inventory=grown)
    assert again.changed == {}, again.log


@pytest.mark.full
@pytest.mark.parametrize("tier", ["app", "cache", "redis", "storage"])
def test_a_host_is_removed_under_load(fleet, grown, tier):
    host = NEW[tier]
    with fleet.load():
        done = play("remove.yml", "-e", f"host={host}", inventory=grown)
    assert f"{host} has left" in done.output
    forget(grown, tier, host)


@pytest.mark.full
def test_a_host_that_leads_is_removed_under_load(fleet, grown):
    """It hands over first: requests wait, as for a switchover."""
    host, larger = NEW["db"], Fleet.read(grown, fleet.url, fleet.ca)
    eventually(lambda: in_step(larger), 120)
    with change_under_load(larger):
        play("switchover.yml", "-e", f"to={host}", inventory=grown)
        assert larger.leader() == host
        eventually(lambda: in_step(larger), 60)
        done = play("remove.yml", "-e", f"host={host}", inventory=grown)
        assert larger.leader() != host
    assert f"{host} has left" in done.output
    forget(grown, "db", host)
    eventually(lambda: in_step(fleet), 60)


@pytest.mark.full
def test_the_others_forget_them(fleet, grown):
    with fleet.load():
        play("site.yml", inventory=grown)
    play("status.yml", inventory=grown)
    known = fleet.redis(fleet.primary(), "SENTINEL MASTER evenkeel", port=26379).split()
    assert known[known.index("num-slaves") + 1] == "2"
    assert known[known.index("num-other-sentinels") + 1] == "2"
    assert known[known.index("quorum") + 1] == "2"
    devices = fleet.ssh(fleet.groups["storage"][0],
                        "swift-ring-builder /etc/swift/object.builder || true")  # fmt: skip
    assert "3 devices" in devices
    host = fleet.groups["db"][0]
    ask = f"etcdctl --endpoints=http://{fleet.addresses[host]}:2379 member list"
    assert len(fleet.ssh(host, ask).splitlines()) == 3
    again = play("site.yml")
    assert again.changed == {}, again.log


@pytest.mark.full
def test_a_balancer_leaves_and_comes_back(fleet):
    """Whoever is connected to it is cut off; the budget is that of a balancer that is lost."""
    host = eventually(lambda: holder(fleet))
    with change_under_load(fleet, prove=False) as load:
        play("remove.yml", "-e", f"host={host}")
        eventually(lambda: holder(fleet) not in (None, host), 10)
    assert load.report["failed"] <= 5 * load.report["rate"], load.summary
    assert "inactive" in fleet.ssh(host, "systemctl is-active nginx keepalived || true")
    with change_under_load(fleet, prove=False) as load:
        play("site.yml")
    assert load.report["failed"] <= 5 * load.report["rate"], load.summary
    play("status.yml")
