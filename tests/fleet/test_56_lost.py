"""Machines that never come back: the others do without them, and new ones take their places."""

import re
import shutil

import pytest

from tests.fleet.changes import (
    change_under_load,
    copy_of_lab,
    forget,
    holder,
    in_step,
    needs_three,
)
from tests.fleet.support import LAB, Fleet, eventually, lab, play

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def lost(fleet):
    """A host of each tier, by tier; those that lead are the subject of drills."""
    needs_three(fleet)
    leads = {"lb": holder(fleet), "redis": fleet.primary(), "db": fleet.leader()}
    return {
        tier: next(host for host in reversed(fleet.groups[tier]) if host != leads.get(tier))
        for tier in ("app", "cache", "lb", "redis", "db", "storage")
    }


@pytest.fixture(scope="module")
def shrunk(lost):
    """The lab's inventory, to delete them from."""
    inventory = copy_of_lab("shrunk")
    yield inventory
    lab("up", "-i", str(LAB), "--name", "lab")
    shutil.rmtree(inventory)


@pytest.mark.parametrize("tier", ["app", "cache", "lb", "redis", "db", "storage"])
def test_a_lost_host_is_removed_under_load(fleet, lost, shrunk, tier):
    host = lost[tier]
    asked = ("remove.yml", "-e", f"host={host}", "-e", "accept=fewer")
    with change_under_load(fleet):
        lab("host", "kill", host)
        # Refused until the others are well without it: an election of etcd takes seconds.
        eventually(lambda: play(*asked, "--check", inventory=shrunk, code=None).code == 0, 60)
        done = play(*asked, inventory=shrunk)
    said = " ".join(done.output.split())
    assert f"{host} has left {tier}" in said
    assert "It did not answer, so nothing was stopped there" in said
    assert set(done.changed) <= set(fleet.groups[tier]) - {host}
    forget(shrunk, tier, host)


def test_site_makes_the_others_forget_them(fleet, lost, shrunk):
    with change_under_load(fleet):
        done = play("site.yml", inventory=shrunk)
    left = Fleet.read(shrunk, fleet.url, fleet.ca)
    assert set(left.hosts) <= done.changed.keys(), "each has /etc/hosts and a firewall"
    gone = {fleet.addresses[host] for host in lost.values()}
    look = "nft list ruleset; cat /etc/hosts; grep -rh server /etc/nginx/conf.d 2>/dev/null || true"
    for host in left.hosts:
        known = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", left.ssh(host, look)))
        assert not known & gone, host
    eventually(lambda: in_step(left), 60)
    assert len(etcd_members(left)) == len(left.groups["db"])
    play("status.yml", inventory=shrunk)
    again = play("site.yml", inventory=shrunk)
    assert again.changed == {}, again.log


def etcd_members(fleet):
    host = fleet.groups["db"][0]
    ask = f"etcdctl --endpoints=http://{fleet.addresses[host]}:2379 member list"
    return fleet.ssh(host, ask).splitlines()


def test_new_machines_take_their_places_under_load(fleet, shrunk):
    lab("up", "-i", str(shrunk), "--name", "lab")  # the dead ones are thrown away
    lab("up", "-i", str(LAB), "--name", "lab")
    with change_under_load(fleet):
        play("site.yml")
        fleet.wait_all_answer()
    eventually(lambda: in_step(fleet), 60)
    assert len(etcd_members(fleet)) == len(fleet.groups["db"])
    play("status.yml")
    again = play("site.yml")
    assert again.changed == {}, again.log
