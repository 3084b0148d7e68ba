"""What remove.yml refuses, and how it says so."""

from pathlib import Path

import pytest
import yaml

from plugins.filter.removal import can_not_spare, tiers_of
from plugins.modules import host_status

NAMES = {
    "lb": ["lb1", "lb2"],
    "app": ["app1", "app2"],
    "db": ["db1", "db2", "db3"],
    "redis": ["r1", "r2", "r3", "r4"],
    "storage": ["s1"],
}
PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
LEADERS = ("db1", "r1")
GROUPS = {**NAMES, "all": [name for names in NAMES.values() for name in names]}


def answers(*ill, lost=(), leaders=LEADERS):
    """What host_status says of every host; those in `ill` are unwell, those in `lost` silent."""

    def health(host):
        return "it is ill" if host in ill else "ok, primary" if host in leaders else "ok, replica"

    return {
        host: {"unreachable": True}
        if host in lost
        else {"rows": [{"tier": tier, "healthy": host not in ill, "health": health(host)}]}
        for tier, hosts in NAMES.items()
        for host in hosts
    }


def test_a_host_that_others_can_do_without():
    assert can_not_spare("app2", GROUPS, answers()) == []
    assert can_not_spare("r4", GROUPS, answers()) == []
    assert can_not_spare("lb1", GROUPS, answers("lb1")) == [], "it need not be well itself"


def test_a_name_that_is_not_there():
    (line,) = can_not_spare("app9", GROUPS, answers())
    assert "no host 'app9'" in line
    (line,) = can_not_spare("", GROUPS, answers())
    assert "-e host=" in line


def test_the_last_of_a_tier():
    (line,) = can_not_spare("s1", GROUPS, answers(), accept="fewer")
    assert "only host of tier storage" in line


def test_nobody_else_who_is_well():
    (line,) = can_not_spare("app1", GROUPS, answers("app2"))
    assert "no other host of tier app is well" in line


@pytest.mark.parametrize("accept", ["", "fewer"])
def test_a_quorum_while_another_is_ill(accept):
    lines = can_not_spare("r4", GROUPS, answers("r2"), accept)
    assert len(lines) == 1
    assert "can't spare r4 while another is unwell (r2: it is ill)" in lines[0]
    assert "r2: does not answer" in can_not_spare("r4", GROUPS, answers(lost=["r2"]))[0]


def test_fewer_than_a_quorum_survives_with():
    (line,) = can_not_spare("db2", GROUPS, answers())
    assert "left with 2 hosts" in line
    assert "-e accept=fewer" in line
    assert can_not_spare("db2", GROUPS, answers(), accept="fewer") == []
    assert can_not_spare("db2", GROUPS, answers(), back=True) == [], "it comes back"


def test_one_that_is_lost():
    assert can_not_spare("app2", GROUPS, answers(lost=["app2"])) == []
    assert can_not_spare("r4", GROUPS, answers(lost=["r4"])) == []
    (line,) = can_not_spare("app2", GROUPS, answers(lost=["app1", "app2"]))
    assert "app2 is needed" in line
    for other in ("r2", "r4"):
        (line,) = can_not_spare("r4", GROUPS, answers("r3", lost={"r4", other}))
        assert "while another is unwell" in line


@pytest.mark.parametrize(("host", "heir"), [("r1", "r3"), ("db1", "db2")])
def test_a_leader_that_is_lost_before_another_leads(host, heir):
    """Whoever forgot it now would look for its successor among nobody."""
    (line,) = can_not_spare(host, GROUPS, answers(lost=[host]), accept="fewer")
    assert f"{host} is lost" in line
    assert "leads yet" in line
    followed = answers(lost=[host], leaders=[heir])
    assert can_not_spare(host, GROUPS, followed, accept="fewer") == []
    ill = answers(host, leaders=[])
    assert can_not_spare(host, GROUPS, ill, accept="fewer") == [], "it answers, and hands over"


def test_a_replica_that_is_lost_while_its_leader_is_well():
    assert can_not_spare("db3", GROUPS, answers(lost=["db3"]), accept="fewer") == []
    redis = answers(lost=["r4"])
    redis["r1"]["rows"][0]["health"] = "ok, master"
    assert can_not_spare("r4", GROUPS, redis) == []


def test_a_host_leaves_its_tiers_from_the_front_to_the_back():
    groups = {tier: ["one"] for tier in ("db", "storage", "app", "lb", "redis")}
    assert tiers_of("one", groups) == ["lb", "app", "redis", "db", "storage"]


def test_a_store_without_its_disk_is_unwell_though_it_listens(monkeypatch):
    def get(_, port, path):
        return 200 if port == 8080 else 507 if path.startswith("/d2/") else 404, ""

    monkeypatch.setattr(host_status, "get", get)
    monkeypatch.setattr(host_status, "listens", lambda *_: True)
    monkeypatch.setattr(host_status.Status, "units", lambda *_: ("", []))
    for devices, healthy in ((["d1"], True), (["d1", "d2"], False)):
        row = host_status.Status({"address": "10.0.0.1", "devices": devices}).row("storage")
        assert row["healthy"] == healthy
    assert "device d2 is not there" in row["health"]


@pytest.mark.parametrize("name", ["front", "data", "storage"])
def test_no_play_of_a_removal_meets_a_host_that_is_lost(name):
    """An unreachable host ends a play for all, ignored or not: any_errors_fatal."""
    plays = yaml.safe_load((PLAYBOOKS / f"leave_{name}.yml").read_text())
    for play in (play for play in plays if "hosts" in play):
        assert "ignore_unreachable" not in play
        for group in play["hosts"].split(":"):
            assert group.startswith(("leaves_", "stays_")), play["name"]
