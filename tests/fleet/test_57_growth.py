"""Hosts that come and go under load."""

import shutil

import pytest
import yaml

from tests.fleet.support import LAB, STATE, eventually, lab, play


def edit_hosts(inventory, change):
    path = inventory / "hosts.yml"
    content = yaml.safe_load(path.read_text())
    change(content["all"]["children"])
    path.write_text(yaml.safe_dump(content))


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
def grown():
    """The lab's inventory with a host more in each of four tiers."""
    inventory = STATE / "grown"
    shutil.rmtree(inventory, ignore_errors=True)
    shutil.copytree(LAB, inventory)

    def add(tiers):
        for tier, number in (("app", 4), ("redis", 4), ("cache", 3), ("storage", 4)):
            first = tiers[tier]["hosts"][f"{tier}1"]["ansible_host"]
            address = first[:-1] + str(number)
            tiers[tier]["hosts"][f"{tier}{number}"] = {"ansible_host": address}

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
@pytest.mark.parametrize("host", ["app4", "cache3", "redis4", "storage4"])
def test_a_host_is_removed_under_load(fleet, grown, host):
    with fleet.load():
        done = play("remove.yml", "-e", f"host={host}", inventory=grown)
    assert f"{host} has left" in done.output
    tier = host[:-1]
    edit_hosts(grown, lambda tiers: tiers[tier]["hosts"].pop(host))


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
    again = play("site.yml")
    assert again.changed == {}, again.log
