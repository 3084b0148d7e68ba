"""What loads measured: recovery, verdict, table and picture."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest

from plugins.drill import plot, render, verdict
from plugins.drill.measure import Sample, Times, recovered, recovery, timeline
from tests.unit.drills import DRILLS, FAULT_AT, load


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
