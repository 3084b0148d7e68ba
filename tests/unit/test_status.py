"""The table of status.yml."""

import json
import os
from types import SimpleNamespace

import pytest

from plugins.filter.status import status_rows, status_table
from plugins.modules import host_status

OK = {"tier": "app", "release": "0123456789ab", "processes": "web 5", "health": "ok"}


def test_a_host_has_a_row_for_each_tier():
    rows = status_rows(["one"], {"one": {"rows": [OK, {**OK, "tier": "lb"}]}})
    assert [(row["host"], row["tier"]) for row in rows] == [("one", "app"), ("one", "lb")]


def test_a_dead_host_has_a_row_that_says_so():
    (row,) = status_rows(["app1"], {"app1": {"unreachable": True, "msg": "timed\nout"}})
    assert row["health"] == "unreachable: timed out"
    assert "healthy" not in row


def test_columns_line_up():
    table = status_table(status_rows(["a", "longer"], {"a": {"rows": [OK]}, "longer": {}}))
    lines = table.splitlines()
    assert lines[0].split() == ["host", "tier", "release", "processes", "health"]
    assert {line.index(word) for line, word in zip(lines[1:], ("app", "-"), strict=True)} == {8}


def mixed(*releases):
    """Health of app hosts a, b, … that run these releases."""
    answers = {
        name: {"rows": [{**OK, "release": release, "healthy": release != "-"}]}
        for name, release in zip("abcd", releases, strict=False)
    }
    return [(row["health"], row["healthy"]) for row in status_rows(list(answers), answers)]


def test_a_host_with_another_release_than_most_is_unwell():
    fine, astray = ("ok", True), ("not the fleet's release: rollback.yml -e release=old", False)
    assert mixed("old", "new", "old") == [fine, astray, fine]


def test_where_no_release_has_most_hosts_the_fleet_is_mixed():
    said = ("the fleet is mixed: rollback.yml -e release=<new or old>", False)
    assert mixed("old", "new") == [said, said]


@pytest.mark.parametrize("releases", [["old"], ["old", "old"], ["old", "-"], ["-", "-"]])
def test_one_release_is_no_mixture(releases):
    assert [health for health, _ in mixed(*releases)] == ["ok"] * len(releases)


def test_what_else_is_wrong_is_still_said():
    sick = {**OK, "release": "new", "health": "/readyz answers 503", "healthy": False}
    answers = {name: {"rows": [OK]} for name in "ab"} | {"c": {"rows": [sick]}}
    health = status_rows(list("abc"), answers)[2]["health"]
    assert health.startswith("/readyz answers 503; not the fleet's release")


def test_a_maintenance_page_that_one_balancer_alone_shows_is_told():
    def healths(*notes):
        well = {**OK, "tier": "lb", "release": "-", "healthy": True}
        rows = [{**well, "health": f"ok{note}"} for note in notes]
        answers = {str(number): {"rows": [row]} for number, row in enumerate(rows)}
        return [(row["health"], row["healthy"]) for row in status_rows(list(answers), answers)]

    page = ", maintenance page on"
    assert healths(page, page) == [(f"ok{page}", True)] * 2
    fine, left = healths("", page)
    assert fine == ("ok", True)
    assert left == (f"ok{page} and not on every balancer: run maintenance.yml", False)


def test_a_release_that_runs_beside_the_live_one_is_told(tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/current").symlink_to("releases/new")

    def said(*words, **_):
        units = "shop-web@new.service loaded active\nshop-web@old.service loaded active"
        return {"list-units": units, "is-active": "active"}.get(words[1], "")

    monkeypatch.setattr(host_status, "said", said)
    units = [{"unit": "shop-web", "type": "web"}]
    given = {"address": "192.0.2.1", "root": tmp_path, "app": "shop", "units": units}
    row = host_status.Status(given).row("app")
    assert row["health"] == "shop-web@old.service runs, too: run site.yml"


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A db host; what Patroni says of it, and the tool of its backups, can be changed."""
    member = {"state": "running", "role": "replica", "replication_state": "streaming"}
    member["patroni"] = {"version": "4.0.7"}
    told = {"notes": "[]"}
    monkeypatch.setattr(host_status, "get", lambda host, port, path: (200, json.dumps(member)))
    monkeypatch.setattr(host_status, "said", lambda *words, **_: told.get(words[-1], "active"))
    monkeypatch.setattr(host_status, "processes", lambda unit: 1)
    monkeypatch.setattr(host_status, "BACKUPS", tmp_path / "pgbackrest-scratch")
    host_status.BACKUPS.touch()
    status = host_status.Status({"address": "192.0.2.1"})
    return SimpleNamespace(member=member, told=told, row=lambda: status.row("db"))


@pytest.mark.parametrize("state", [None, "in archive recovery"])
def test_a_replica_that_does_not_stream_is_unwell(database, state):
    assert database.row()["health"] == "ok, replica"
    database.member["replication_state"] = state
    row = database.row()
    assert (row["health"], row["healthy"]) == ("the replica does not follow the leader", False)
    database.member["role"] = "primary"
    assert database.row()["health"] == "ok, primary"


def test_a_patroni_that_can_not_say_whether_it_streams_is_believed(database):
    """Debian 12 has 3.0.2."""
    del database.member["replication_state"]
    database.member["patroni"]["version"] = "3.0.2"
    assert database.row()["health"] == "ok, replica"


def test_backups_of_which_nothing_is_known_have_a_note(database):
    """Silence would look as if all were well."""
    database.told["notes"] = ""
    said = (
        "ok, replica, nothing is known of backups: runuser -u postgres -- pgbackrest-scratch notes"
    )
    assert database.row()["health"] == said
    host_status.BACKUPS.unlink()
    assert database.row()["health"] == "ok, replica"


@pytest.mark.parametrize(
    ("ports", "health"),
    [
        ("elements = { 8000 expires 60s }", "drained: run restart.yml, or wait"),
        ("", "ok"),  # the table of a drain that ended by itself
    ],
)
def test_a_host_is_drained_as_long_as_ports_are_refused(tmp_path, monkeypatch, ports, health):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/current").symlink_to("releases/new")
    table = f"table inet evenkeel_drain {{ set ports {{ type inet_service {ports} }} }}"
    monkeypatch.setattr(host_status, "said", lambda *words, **_: table * ("nft" in words))
    given = {"address": "192.0.2.1", "root": tmp_path, "app": "shop", "units": []}
    assert host_status.Status(given).row("app")["health"].startswith(health)


NOON = 1795435200  # 2026-11-23 12:00 UTC


@pytest.fixture
def copier(tmp_path, monkeypatch):
    """A host with copies at 03:00; what systemd says of them can be changed."""
    said = {
        "ActiveState,SubState": "ActiveState=inactive\nSubState=dead",
        "TimersCalendar": "TimersCalendar={ OnCalendar=*-*-* 03:00:00 ; next_elapse=x }",
        "calendar": "    Next elapse: Mon 2026-11-23 03:00:00 UTC\n       From now: 9h ago",
    }

    def answer(*words, **_):
        return next(text for name, text in said.items() if any(name in word for word in words))

    monkeypatch.setattr(host_status, "said", answer)
    monkeypatch.setattr(host_status.time, "time", lambda: NOON)
    for name in ("COPIER", "COPIED"):
        monkeypatch.setattr(host_status, name, tmp_path / name)
    (tmp_path / "COPIER").touch()
    return said


def copied(hours_ago):
    host_status.COPIED.touch()
    os.utime(host_status.COPIED, (NOON - hours_ago * 3600,) * 2)
    return host_status.Status.copies()


def test_a_host_without_copies_has_no_note(copier):
    host_status.COPIER.unlink()
    assert host_status.Status.copies() == []


def test_copies_that_were_never_taken_have_a_note(copier):
    (note,) = host_status.Status.copies()
    assert "systemctl start rclone-copies" in note


def test_copies_that_failed_have_a_note(copier):
    copier["ActiveState,SubState"] = "ActiveState=activating\nSubState=auto-restart"
    assert copied(1) == ["rclone-copies failed: journalctl -u rclone-copies"]


def test_copies_that_are_late_have_a_note(copier):
    assert copied(33) == ["nothing copied since 2026-11-22 03:00 UTC: journalctl -u rclone-copies"]
    copier["calendar"] = "    Next elapse: Tue 2026-11-24 03:00:00 UTC\n       From now: 15h left"
    assert copied(9) == []


def test_a_note_stands_beside_ok(monkeypatch):
    status = host_status.Status({"address": "192.0.2.1"})
    answer = ("", "", ["nothing copied yet"], [])
    monkeypatch.setattr(host_status.Status, "storage", lambda self: answer)
    row = status.row("storage")
    assert (row["health"], row["healthy"]) == ("ok, nothing copied yet", True)


def test_groups_that_are_no_tiers_have_no_row():
    """An inventory's own groups may have any name, also that of something in the module."""
    groups = ["copies", "backups", "units", "row", "rows", "berlin"]
    assert host_status.Status({"address": "192.0.2.1", "tiers": groups}).rows() == []
