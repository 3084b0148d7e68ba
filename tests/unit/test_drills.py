"""The drills' catalogue, what their loads measured, and how they are judged and shown."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from plugins.drill import plot, render, verdict
from plugins.drill.measure import Sample, Times, recovered, recovery, timeline
from plugins.load import ROOT
from plugins.load.mix import Mix

CATALOGUE = yaml.safe_load((ROOT / "playbooks/vars/drills.yml").read_text())
DRILLS = CATALOGUE["drills"]
FAULT_AT = 10.0


def plugin(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filters = plugin(ROOT / "plugins/filter/drill.py")
faults = plugin(ROOT / "plugins/modules/drill_fault.py")
roles = plugin(ROOT / "plugins/modules/drill_role.py")
GROUPS = {"app": ["app1", "app2"], "lb": ["lb1", "lb2"], "db": ["db1"], "all": ["app1"]}
COMMANDS = {name: ["true"] for name in ("stop", "kill", "freeze", "start", "thaw")}


def load(seconds=60, failing=lambda second, kind: None, rate=50):
    """Samples at an even rate; `failing` gives how long one took, negative when it failed."""
    kinds = ["app", "write", "total", "write", "sales", "write"]
    samples = []
    for number in range(seconds * rate):
        second, kind = number / rate, kinds[number % len(kinds)]
        took = failing(second, kind)
        samples.append(Sample(second, abs(took or 0.05), kind, took is None or took > 0))
    return samples


def judged(samples, drill=None, **changes):
    found = {
        "name": "db-host-stop", "title": "PostgreSQL's leader: its host stopped", "tier": "db",
        "victims": ["db1"], "fault_at": 1000 + FAULT_AT, "undone_at": 1050.0, "recovered": True,
        "rate": 50, "mix": {"app": 1, "total": 1, "sales": 1, "write": 3}, "holders": [["db2"]],
        "cron": False, "fault": {"how": "host", "command": "stop"},
        "budget": {"recovery": 30, "failed": {"cached": 0, "writes": 30}},
    } | (drill or {})  # fmt: skip
    report = {
        "acknowledged": [{"item": "a"}, {"item": "b"}], "missing": [], "held_back": 0, "lag": 0.01,
        "seconds": 60, "requests": len(samples),
    } | changes.pop("report", {})  # fmt: skip
    database = {"sales": {"a": 1, "b": 1}, "jobs": [], "ticks": [], "without_tick": 0} | changes
    return verdict.judge(found, samples, report, database, 1000.0)


def row(found, name):
    return next(row for row in found["checks"] if row["check"].startswith(name))


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill["name"])
def test_every_entry_can_be_followed(drill):
    known = yaml.safe_load(faults.DOCUMENTATION)["options"]
    how = dict(drill["fault"])
    if how["how"] == "host":
        assert how["command"] in filters.UNDONE_BY
    elif how["how"] != "verb":
        assert how.keys() <= known.keys()
        assert how["how"] in known["how"]["choices"]
    asked = {drill["victim"], drill.get("single")} - {"first", "last", "all", None}
    assert asked <= set(roles.ROLES)
    assert set(roles.ROLES) <= set(dir(roles.Role))
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


@pytest.mark.parametrize(
    ("ways", "dropped", "spared"),
    [("both", 2, 2), ("in", 1, 1), ("out", 1, 1)],
)
def test_a_cut_spares_the_operators_ssh(monkeypatch, ways, dropped, spared):
    monkeypatch.setattr(faults, "run", lambda *_, **__: "2: eth0 inet 10.0.0.4/24")
    params = {"ways": ways, "operators": ["10.0.0.1/32"], "address": "10.0.0.4"}
    rules = faults.rules(params)
    assert re.findall(r"^table inet (\S+) \{", rules, re.M) == ["evenkeel_drill"]
    assert len(re.findall(r"^drop$", rules, re.M)) == dropped
    assert len(re.findall(r"10\.0\.0\.1/32 } tcp [sd]port 22 accept", rules)) == spared
    assert ("device eth0" in rules) == (ways != "in")
    assert rules.count("{") == rules.count("}")


def test_a_signal_goes_to_the_process_of_a_pid_file(tmp_path):
    params = {"how": "signal", "signal": "KILL", "units": [], "pid_file": tmp_path / "pid"}
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "pid").write_text(f"{process.pid}\n/var/lib/postgresql\n")
        [(what, step)] = faults.Fault(params).prepare()
        step()
    assert what == f"SIGKILL to {process.pid}"
    assert process.returncode == -9


def test_a_disk_with_much_room_is_not_filled(tmp_path):
    params = {"how": "full", "units": [], "paths": [str(tmp_path)], "most": "1K"}
    with pytest.raises(faults.FaultError, match="a drill may take 1K"):
        faults.Fault(params).prepare()
    assert list(tmp_path.iterdir()) == []


def service(monkeypatch, *states):
    """A fault that stops nginx, with what systemd says of it in turn; and what it was asked."""
    said, left = [], list(states)

    def run(*argv, **_):
        said.append(argv)
        return left.pop(0) if argv[:2] == ("systemctl", "is-active") else ""

    monkeypatch.setattr(faults, "run", run)
    monkeypatch.setattr(faults.time, "sleep", lambda _: None)
    return faults.Fault({"how": "service", "units": ["nginx"], "paths": [], "signal": "KILL"}), said


def test_neither_stop_nor_start_waits_for_the_quorum(monkeypatch):
    fault, said = service(monkeypatch)
    for _, step in fault.prepare():
        step()
    fault.mend()
    assert said == [
        ("systemctl", "stop", "--no-block", "nginx"),
        ("/bin/sh", "-c", "systemctl start --no-block nginx"),
    ]


def test_whole_waits_until_it_is_and_then_takes_the_timer_away(monkeypatch):
    fault, said = service(monkeypatch, "inactive", "activating", "active")
    fault.whole(60)
    assert [argv[1] for argv in said] == ["is-active"] * 3 + ["stop", "reset-failed"]


def test_the_timer_stays_until_all_is_whole(monkeypatch):
    fault, said = service(monkeypatch, "failed")
    with pytest.raises(faults.FaultError, match="still broken: nginx"):
        fault.whole(-1)
    assert [argv[1] for argv in said] == ["is-active"]


def test_what_mends_by_itself_is_whole_at_once(monkeypatch):
    fault, said = service(monkeypatch)
    fault.params |= {"how": "signal"}
    fault.mend()
    fault.whole(60)
    assert [argv[1] for argv in said] == ["stop", "reset-failed"]


def test_a_disk_is_emptied_only_when_its_units_have_stopped(monkeypatch):
    fault, said = service(monkeypatch)
    fault.params |= {"how": "empty"}
    for _, step in fault.prepare():
        step()
    assert said == [("systemctl", "stop", "nginx"), ("systemctl", "start", "nginx")]


def test_a_process_that_is_stopped_is_seen():
    with subprocess.Popen(["sleep", "60"]) as process:
        assert not faults.stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert faults.stopped(process.pid)
        process.kill()
    assert not faults.stopped(process.pid)


def test_what_lasts_has_an_undo():
    for drill in DRILLS:
        how = drill["fault"]
        if how["how"] in ("host", "verb"):
            continue
        params = {"signal": "KILL", "units": ["x"], "paths": ["/x"]} | how
        assert bool(faults.Fault(params).undo()) >= filters.drill_lasts(how), drill["name"]


def test_nothing_disrupted_is_no_recovery():
    assert recovery(load(), Times(FAULT_AT)) == 0


def test_recovery_ends_with_the_first_good_answer():
    samples = load(failing=lambda s, kind: -0.1 if 10 <= s < 22 and kind == "write" else None)
    assert recovery(samples, Times(FAULT_AT)) == pytest.approx(12, abs=0.1)


def test_requests_that_wait_count_until_they_are_answered():
    samples = load(failing=lambda s, _: 18 - s if 10 <= s < 17.9 else None)
    assert recovery(samples, Times(FAULT_AT)) == pytest.approx(8, abs=0.1)


def waiting(slow):
    """A load whose requests, number by number of their kind, wait for 4 s where `slow` says so."""
    counted = Counter()

    def took(second, kind):
        counted[kind] += 30 <= second < 33
        return 4.0 if 30 <= second < 33 and slow(kind, counted[kind]) else None

    return load(failing=took)


@pytest.mark.parametrize("most", [1, 2, 14])
def test_a_few_slow_answers_among_many_are_chance(most):
    samples = waiting(
        lambda kind, number: kind == "write" and number % 5 == 0 and number <= 5 * most
    )
    slow = [s for s in samples if s.seconds > 3]
    assert len(slow) == most
    assert recovery(samples, Times(FAULT_AT)) == 0


def test_a_fifth_that_waits_is_an_outage():
    samples = waiting(lambda kind, number: kind == "write" and number % 5 == 0)
    # Its last second is beside one without; the answers to the two before came at 36.
    assert recovery(samples, Times(FAULT_AT)) == pytest.approx(26, abs=0.3)


@pytest.mark.parametrize("only", ["write", "sales"])
def test_an_outage_of_one_kind_is_one(only):
    samples = waiting(lambda kind, number: kind == only)
    assert recovery(samples, Times(FAULT_AT)) == pytest.approx(27, abs=0.3)


def test_two_of_a_rare_kind_are_no_crowd_and_three_are():
    for number, found in ((2, 0), (3, 25.8)):
        rare = [Sample(31 + 0.4 * each, 4.0, "login", True) for each in range(number)]
        assert recovery(sorted(load() + rare), Times(FAULT_AT)) == pytest.approx(found, abs=0.1)


def test_a_single_failure_always_counts():
    samples = load(failing=lambda s, _: -0.1 if s == 30 else None)
    assert recovery(samples, Times(FAULT_AT)) == pytest.approx(20, abs=0.1)


def test_one_slow_answer_before_the_fault_hides_nothing():
    samples = load(failing=lambda s, _: 8.0 if s == 1 else 18 - s if 10 <= s < 17.9 else None)
    assert recovery(samples, Times(FAULT_AT)) == pytest.approx(8, abs=0.1)


def test_answers_that_are_always_slow_are_no_excuse_without_end():
    samples = load(failing=lambda s, _: 1.8 if s < 10 else 3.2 if s < 12 else None)
    assert recovery(samples, Times(FAULT_AT)) == pytest.approx(5.2, abs=0.1)


def test_what_the_undo_disrupts_counts_from_there():
    samples = load(failing=lambda s, _: -0.1 if 40 <= s < 43 else None)
    assert recovery(samples, Times(FAULT_AT, 40)) == pytest.approx(3, abs=0.1)


def test_a_fault_that_lasts_may_be_measured_from_its_undo():
    samples = load(failing=lambda s, _: -0.1 if 10 <= s < 42 else None)
    assert recovery(samples, Times(FAULT_AT, 40)) == pytest.approx(32, abs=0.1)
    assert recovery(samples, Times(FAULT_AT, 40), from_undo=True) == pytest.approx(2, abs=0.1)


def test_a_verb_is_measured_from_the_first_that_it_disrupts():
    samples = load(failing=lambda s, _: -0.1 if 22 <= s < 25 else None)
    found = judged(samples, {"fault": {"how": "verb"}, "budget": {"recovery": 5}})
    line = row(found, "recovery")
    assert line["check"] == "recovery, s (from the first disrupted)"
    assert line["measured"] == pytest.approx(3, abs=0.1)
    assert line["passed"]
    assert row(judged(samples), "recovery")["measured"] == pytest.approx(15, abs=0.1)
    assert recovery(load(), Times(FAULT_AT), from_first=True) == 0


def test_recovered_needs_reads_and_writes_for_a_while():
    assert recovered(load(20), FAULT_AT)
    assert not recovered(load(12), FAULT_AT)
    assert not recovered(load(20, lambda s, _: -0.1 if s > 16 else None), FAULT_AT)
    reads = [s for s in load(20) if s.kind != "write" or s.begin < FAULT_AT]
    assert not recovered(reads, FAULT_AT)


def test_the_timeline_has_ten_slices_a_second():
    bins = timeline(load(2, lambda s, _: -0.1 if s == 1 else None))
    assert len(bins) == 21
    assert sum(place.reads + place.writes for place in bins) == 99
    assert [place.begin for place in bins if place.failed] == [pytest.approx(1.0)]


def test_within_budget_is_a_pass():
    found = judged(load(failing=lambda s, kind: -0.1 if 10 <= s < 20 and kind == "write" else None))
    assert found["result"] == "pass", render.one(found)
    assert row(found, "failed: writes")["budget"] == 750  # 30 s of half of 50 a second
    assert row(found, "failed: writes")["measured"] == 250


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("lost writes", {"sales": {"a": 1}}),
        ("doubled writes", {"sales": {"a": 1, "b": 2}}),
        ("lost objects", {"report": {"missing": ["one"]}}),
        ("acknowledged writes", {"report": {"acknowledged": []}}),
        ("requests that the load could not send", {"report": {"held_back": 300}}),
        ("primaries", {"drill": {"single": "x", "holders": [["db1", "db2"], ["db2"]]}}),
        ("primaries", {"drill": {"single": "x", "holders": [["db1"], []]}}),
        ("answered again", {"drill": {"recovered": False}}),
        ("ticks", {"ticks": [[1000, 1001, True], [1020, 1021, True]]}),
        ("ticks", {"ticks": [[1000, 1001, True], [1010, 1011, False]]}),
        ("doubled ticks", {"without_tick": 1}),
        ("last tick", {"drill": {"cron": True}}),
        ("last tick", {"drill": {"cron": True}, "ticks": [[1000, 1001, True]]}),
        ("slowest", {"drill": {"budget": {"recovery": 5, "slowest": 0.01}}}),
        ("recovery", {"drill": {"measure": "jobs"}, "jobs": [[1000, 1050, "done"]]}),
        ("recovery", {"drill": {"measure": "ticks"}, "ticks": [[1000, 1050, True]]}),
    ],
)
def test_each_promise_that_is_broken_fails_the_drill(check, changes):
    assert judged(load())["result"] == "pass"
    found = judged(load(), **changes)
    assert found["result"] == "fail"
    assert [line["check"] for line in found["checks"] if not line["passed"]] == [
        row(found, check)["check"]
    ]


def test_only_a_fleet_that_was_away_may_leave_out_ticks():
    def passed(tier, *times):
        found = judged(load(), {"tier": tier, "budget": {"recovery": 120}},
                       ticks=[[time, time, True] for time in times])  # fmt: skip
        return row(found, "ticks")["passed"]

    assert passed("all", 1000, 1010, 1090, 1100)
    assert not passed("db", 1000, 1010, 1090, 1100)
    assert not passed("all", 1000, 1130)
    assert not passed("all", 1000, 1050, 1060, 1110), "one, and not two"


def test_cron_must_be_alive_in_the_end():
    ticks = [[float(time), time + 0.5, True] for time in range(1000, 1060, 10)]
    found = judged(load(), {"cron": True, "budget": {"recovery": None}}, ticks=ticks)
    assert row(found, "last tick") == {
        "check": "last tick before the load's end, s", "budget": 25, "measured": 10.0,
        "passed": True,
    }  # fmt: skip


def test_failures_over_budget_fail():
    found = judged(load(failing=lambda s, kind: -0.1 if 12 <= s < 13 and kind == "app" else None))
    assert found["result"] == "fail"
    assert not row(found, "failed: cached")["passed"]


@pytest.mark.parametrize("measure", ["jobs", "ticks"])
def test_what_never_came_is_said_and_shown(measure):
    samples = load()
    found = judged(samples, {"measure": measure, "budget": {"recovery": None}})
    assert found["result"] == "fail"
    assert row(found, "recovery")["measured"] is None
    assert "Infinity" not in json.dumps(found)
    assert re.search(r"recovery, s +- +never +FAIL", render.one(found))
    assert "| never |" in render.markdown([found], "2026-11-21", "2 cores")
    assert "recovery never" in plot.plot(found, samples, Times(FAULT_AT))


def test_tables_say_budget_measured_and_result():
    good, bad = judged(load()), judged(load(), sales={"a": 1})
    bad["name"] = "other"
    table = render.one(bad)
    assert re.search(r"lost writes and jobs +0 +1 +FAIL", table)
    assert re.search(r"recovery, s +30 +0 +pass", table)
    none = verdict.skipped(DRILLS[0], "needs three db hosts")
    page = render.markdown([good, bad, none], "2026-11-21", "2 cores")
    lines = page.splitlines()
    assert lines[0] == "2026-11-21, 2 cores."
    assert {line.count("|") for line in lines[2:]} == {10}
    assert "(drills/db-host-stop.svg)" in lines[4]
    assert lines[6].endswith("| skipped: needs three db hosts |")
    assert render.inserted(f"a\n{render.BEGIN}\nold\n{render.END}\nb", "new") == (
        f"a\n{render.BEGIN}\nnew\n{render.END}\nb"
    )


def test_the_picture_is_svg_and_shows_fault_and_undo():
    samples = load(failing=lambda s, kind: -0.1 if 10 <= s < 20 and kind == "write" else None)
    found = judged(samples)
    picture = plot.plot(found, samples, Times(FAULT_AT, 50))
    words = [node.text for node in ElementTree.fromstring(picture).iter() if node.text]
    assert {"fault", "undone", "pass"} <= set(words)
    assert any("10.0 s of 30 s" in word for word in words)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "plugins.drill", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def keep(folder, drill=DRILLS[0], fault_at=1010.0, **changes):
    """Leave in a folder what a drill does."""
    folder.mkdir(parents=True)
    lines = [json.dumps({"wall": fault_at - FAULT_AT, "run": "x"}), *map(json.dumps, load())]
    (folder / "samples").write_text("\n".join(lines) + "\n")
    drill = drill | {
        "victims": ["app1"], "holders": [], "fault_at": fault_at, "undone_at": None,
        "recovered": True, "rate": 50, "mix": CATALOGUE["drill_mix"], "skipped": "", "broken": "",
        "cron": False,
    } | changes  # fmt: skip
    (folder / "drill.json").write_text(json.dumps(drill))
    report = {
        "acknowledged": [{"item": "a"}], "missing": [], "held_back": 0, "lag": 0.01,
        "seconds": 1, "requests": 1,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    account(folder, {"a": 1})


def account(folder, sales):
    database = {"sales": sales, "jobs": [], "ticks": [], "without_tick": 0}
    (folder / "database.json").write_text(json.dumps(database))


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/drills.md").write_text(f"{render.BEGIN}\n{render.END}\n")
    return tmp_path / "docs"


def test_the_command_judges_and_lists(tmp_path, docs):
    folder = tmp_path / "web-worker-kill"
    keep(folder)
    assert command("wait", folder, "--since", 1010, "--seconds", 5).returncode == 0
    assert command("wait", folder, "--since", 1058, "--seconds", 2).returncode == 1
    done = command("judge", folder)
    assert done.returncode == 0, done.stderr
    assert "a web worker: kill -9 (app1): pass" in done.stdout
    assert command("table", folder, "--docs", docs).returncode == 0
    assert "web worker" in (docs / "drills.md").read_text()
    assert json.loads((docs / "drills.json").read_text())["drills"][0]["result"] == "pass"
    assert (docs / "drills/web-worker-kill.svg").exists()

    account(folder, {})
    assert command("judge", folder).returncode == 0
    assert command("table", folder).returncode == 1


def test_of_several_runs_the_newest_of_each_drill_is_shown_with_its_date(tmp_path, docs):
    first, second, third = (tmp_path / name for name in ("a-run", "b-run", "c-run"))
    keep(second / "web-worker-kill", DRILLS[0], fault_at=1_800_100_000.0, victims=["app2"])
    keep(first / "web-master-kill", DRILLS[1], fault_at=1_800_000_000.0)
    keep(first / "web-worker-kill", DRILLS[0], fault_at=1_800_000_100.0)
    # What was skipped later, on another lab, has measured nothing.
    keep(third / "web-worker-kill", DRILLS[0], fault_at=1_800_200_000.0, skipped="needs two")
    for run in (first, second, third):
        assert command("judge", run).returncode == 0
    account(first / "web-worker-kill", {})  # lost writes, but of an older run
    assert command("judge", first / "web-worker-kill").returncode == 0

    done = command("table", second, third, first, "--docs", docs)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["a web worker", "the gunicorn master"]
    assert re.search(r"app2 .* 2027-01-16 11:46 +pass$", lines[1])
    assert re.search(r"app1 .* 2027-01-15 08:00 +pass$", lines[2])
    assert (docs / "drills.md").read_text().count("| 2027-01-1") == 2
    known = json.loads((docs / "drills.json").read_text())
    assert known["date"] == known["drills"][0]["date"] == "2027-01-16 11:46:40 UTC"
    assert {path.stem for path in (docs / "drills").iterdir()} == {
        "web-worker-kill", "web-master-kill",
    }  # fmt: skip
    assert command("table", first).returncode == 1


def test_a_folder_without_drills_and_a_drill_without_a_verdict_are_no_pass(tmp_path):
    done = command("table", tmp_path)
    assert done.returncode == 1
    assert "no drill was kept in" in done.stderr
    keep(tmp_path / "run" / "web-worker-kill")
    assert command("table", tmp_path / "run").returncode != 0
