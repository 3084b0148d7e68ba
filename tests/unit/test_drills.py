"""The drills' catalogue: every entry can be followed, is promised, and is chosen or skipped."""

import re

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from plugins.drill import verdict
from plugins.filter import drill as filters
from plugins.load.mix import Mix
from plugins.modules import drill_fault, drill_role
from tests.unit.drills import CATALOGUE, DRILLS

GROUPS = {"app": ["app1", "app2"], "lb": ["lb1", "lb2"], "db": ["db1"], "all": ["app1"]}
COMMANDS = {name: ["true"] for name in ("stop", "kill", "freeze", "start", "thaw")}


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill["name"])
def test_every_entry_can_be_followed(drill):
    known = yaml.safe_load(drill_fault.DOCUMENTATION)["options"]
    how = dict(drill["fault"])
    if how["how"] == "host":
        assert how["command"] in filters.UNDONE_BY
    elif how["how"] != "verb":
        assert how.keys() <= known.keys()
        assert how["how"] in known["how"]["choices"]
    asked = {drill["victim"], drill.get("single")} - {"first", "last", "all", None}
    assert asked <= set(drill_role.ROLES)
    assert set(drill_role.ROLES) <= set(dir(drill_role.Role))
    assert drill["tier"] in {"app", "lb", "cache", "db", "redis", "storage", "all"}
    assert "recovery" in drill["budget"], "as measured is said, not left out"
    kinds = {*Mix.KINDS, *verdict.GROUPS}
    assert drill["budget"].get("failed", {}).keys() <= kinds
    assert drill["hold"] > (drill["budget"]["recovery"] or 0) or drill.get("from") == "undo"
    assert drill.get("measure", "requests") in {"requests", "jobs", "ticks"}
    assert re.fullmatch(r"[a-z-]+", drill["name"])


# The table of issue 4: recovery, failed requests as seconds' worth of their rate.
PROMISED = {
    "web-worker-kill web-master-kill app-host-stop app-host-kill": (5, {"all": 0}),
    "job-worker-kill job-worker-frozen cron-leader-kill cron-leader-frozen": (15, {"all": 0}),
    "lb-nginx-stop lb-host-stop lb-cut lb-mute lb-deaf": (5, {"all": 5}),
    "cache-host-stop": (2, {"all": 0}),
    "db-postmaster-kill": (10, {"cached": 0, "writes": 10}),
    "db-host-stop db-host-kill db-cut db-deaf db-mute": (30, {"cached": 0, "writes": 30}),
    "db-switchover": (5, {"all": 0}),
    "etcd-member-stop etcd-down": (20, {}),
    "redis-kill redis-host-stop redis-cut redis-mute": (15, {"reads": 0}),
    "redis-down": (15, {"app": 0, "sales": 0}),
    "storage-host-stop storage-disk-emptied": (10, {"all": 0}),
    "db-disk-full app-disk-full lb-disk-full": (None, {}),
    "app-host-frozen": (10, {"all": 0}),
    "redis-frozen": (15, {"reads": 0}),
    "db-frozen": (30, {"cached": 0, "writes": 30}),
    "power-cut": (120, {}),
}


@pytest.mark.parametrize(
    ("name", "promised"),
    [(name, promised) for names, promised in PROMISED.items() for name in names.split()],
)
def test_budgets_are_those_of_the_issue(name, promised):
    [drill] = [drill for drill in DRILLS if drill["name"] == name]
    assert (drill["budget"]["recovery"], drill["budget"].get("failed", {})) == promised
    # What comes back only with what was down is measured from there, and nothing else is.
    later = {"etcd-down", "redis-down", "power-cut"} | {n for n in [name] if "disk-full" in n}
    assert (drill.get("from") == "undo") == (name in later)
    assert drill["budget"].get("slowest") == (5 if name == "app-host-frozen" else None)
    if drill["tier"] in ("db", "redis"):
        assert "primary" in drill["single"], "the old one must not come back as a second"


def test_names_are_unique_and_every_tier_has_drills():
    names = [drill["name"] for drill in DRILLS]
    assert len(set(names)) == len(names)
    assert set(names) == {name for some in PROMISED for name in some.split()}
    assert {drill["tier"] for drill in DRILLS} >= {"app", "lb", "cache", "db", "redis", "storage"}


@pytest.mark.parametrize("name", ["drill_mix", "drill_mix_objects"])
def test_half_of_the_load_writes(name):
    mix = CATALOGUE[name]
    assert mix.keys() <= set(Mix.KINDS)
    writes = sum(weight for kind, weight in mix.items() if kind in verdict.GROUPS["writes"])
    assert writes == sum(mix.values()) / 2


def test_drills_are_chosen_by_name():
    assert filters.drills_chosen(DRILLS, "all") == DRILLS
    some = filters.drills_chosen(DRILLS, "redis-kill,db-cut")
    assert {drill["name"] for drill in some} == {"redis-kill", "db-cut"}
    for wrong in ("", "db-cut,nothing"):
        with pytest.raises(AnsibleFilterError, match=r"-e fault=<name>.*web-worker-kill"):
            filters.drills_chosen(DRILLS, wrong)


@pytest.mark.parametrize(
    ("drill", "why"),
    [
        ({"needs": 3, "tier": "db", "fault": {"how": "cut"}}, "needs three db hosts"),
        ({"tier": "cache", "fault": {"how": "cut"}}, "needs one cache host"),
        ({"tier": "app", "process": "cron", "fault": {"how": "signal"}},
         "needs the process type cron"),
        ({"needs": 2, "tier": "app", "fault": {"how": "signal"}}, ""),
        ({"tier": "app", "fault": {"how": "host", "command": "kill"}}, ""),
    ],
)  # fmt: skip
def test_what_a_fleet_is_too_small_for_is_skipped(drill, why):
    assert filters.drill_skip(drill, GROUPS, {"web": {}}, COMMANDS) == why


def test_without_an_address_nobody_can_hold_it():
    drill = {"tier": "lb", "victim": "address_holder", "fault": {"how": "full"}}
    assert filters.drill_skip(drill, GROUPS, {"web": {}}, COMMANDS) == "needs fleet_virtual_ip"
    assert filters.drill_skip(drill, GROUPS, {"web": {}}, COMMANDS, "10.0.0.100") == ""


def test_a_host_without_a_way_back_is_not_broken():
    drill = {"tier": "app", "fault": {"how": "host", "command": "freeze"}}
    commands = {"freeze": ["true"], "thaw": []}
    assert filters.drill_skip(drill, GROUPS, {"web": {}}, commands) == (
        "needs drill_host_commands: thaw"
    )
