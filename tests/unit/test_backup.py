"""Backups: which point in time is meant, who acts, and what counts as the same."""

import importlib.util
import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter.backup import bucket_keys, newest_backups, restore_problems, restore_target

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "roles/pgbackrest/files/scratch"


def tool(name, **others):
    """A module of the tool; `others` are those that it imports."""
    spec = importlib.util.spec_from_file_location(name, TOOL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for other, found in others.items():
            patch.setitem(sys.modules, other, found)
        spec.loader.exec_module(module)
    return module


facts = tool("facts")
scratch = tool("scratch", facts=facts)
notes = tool("notes", facts=facts)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
BACKUPS = [{"timestamp": {"stop": NOON - 100}}, {"timestamp": {"stop": NOON + 50}}]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", ""),
        ("2026-11-20 12:00:00", "2026-11-20 12:00:00+00"),
        ("2026-11-20T12:00:00", "2026-11-20 12:00:00+00"),
        ("2026-11-20T12:00:00Z", "2026-11-20 12:00:00+00"),
        ("2026-11-20 14:00:00+02", "2026-11-20 12:00:00+00"),
        ("2026-11-20 01:30:00-0330", "2026-11-20 05:00:00+00"),
        ("2026-11-20 12:00:00.25", "2026-11-20 12:00:00.250000+00"),
    ],
)
def test_a_time_without_an_offset_is_utc(said, meant):
    assert restore_target(said) == meant


@pytest.mark.parametrize("said", ["yesterday", "2026-11-20", "12:00:00", "2026-13-20 12:00:00"])
def test_what_is_no_time_is_refused_with_an_example(said):
    with pytest.raises(AnsibleFilterError, match="no time: write it like") as error:
        restore_target(said)
    # Ansible splits what it is given at spaces.
    examples = re.findall(r"\d{4}-\S+\d", str(error.value).split("write it like")[1])
    assert [restore_target(example) for example in examples] == ["2026-11-20 12:00:00+00"] * 2


def test_a_target_that_the_backups_reach():
    assert restore_problems("", BACKUPS, NOON) == []
    assert restore_problems("2026-11-20 12:00:00+00", BACKUPS, NOON) == []


@pytest.mark.parametrize(
    ("target", "backups", "reason"),
    [
        ("", [], "no backup"),
        ("2026-11-20 12:00:01+00", BACKUPS, "has not come yet"),
        ("2026-11-20 11:58:00+00", BACKUPS, "oldest backup kept, 2026-11-20 11:58:20"),
    ],
)
def test_a_target_that_they_do_not(target, backups, reason):
    (problem,) = restore_problems(target, backups, NOON)
    assert reason in problem


def member(name, role, state="streaming"):
    return {"name": name, "role": role, "state": state}


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ([member("db1", "leader", "running")], "db1"),
        ([member("db3", "replica"), member("db1", "leader"), member("db2", "replica")], "db2"),
        ([member("db1", "leader"), member("db2", "quorum_standby", "starting"),
          member("db3", "quorum_standby")], "db3"),
        ([], None),
    ],
)  # fmt: skip
def test_one_member_proves_backups_a_replica_if_there_is_one(members, name):
    assert facts.chosen(members) == name


@pytest.mark.parametrize(
    ("answers", "leads"),
    [
        ([("/primary", 200)], True),
        ([("/primary", 503), ("db2/primary", 200)], False),
        # In a failover: who led before is lost, then this member leads, or the other.
        ([("/primary", 503), ("db2/primary", 0), ("/primary", 200)], True),
        ([("/primary", 503), ("db2/primary", 503), ("/primary", 503), ("db2/primary", 200)], False),
    ],
)
def test_a_backup_waits_for_a_leader(monkeypatch, answers, leads):
    host, left = facts.Host({"stanza": "main", "rest": "", "member": "db1"}), list(answers)

    def rest(path, base=""):
        if path == "/cluster":
            db2 = {"name": "db2", "role": "leader", "api_url": "db2/patroni"}
            return 200, {"members": [{"name": "db1", "role": "replica"}, db2]}
        asked, status = left.pop(0)
        assert base + path == asked
        if not status:
            raise facts.ScratchError("Patroni does not answer")
        return status, {}

    monkeypatch.setattr(host, "rest", rest)
    monkeypatch.setattr(facts.time, "sleep", lambda seconds: None)
    assert host.leads() is leads
    assert left == []


def test_nobody_who_leads_is_no_answer(monkeypatch):
    host = facts.Host({"stanza": "main", "rest": "", "member": "db1"})
    monkeypatch.setattr(host, "rest", lambda path: (503, {}))  # etcd has no quorum
    monkeypatch.setattr(facts.time, "sleep", lambda seconds: None)
    with pytest.raises(facts.ScratchError, match="no member has led"):
        host.leads(patience=0)


def test_a_repository_that_can_not_be_read_is_not_an_empty_one():
    assert facts.held({"status": {"code": 1}, "backup": []}) == []
    assert facts.held({"status": {"code": 0}, "backup": [{"label": "x"}]}) == [{"label": "x"}]
    broken = {"status": {"code": 99}, "repo": [{"status": {"message": "[CryptoError] no"}}]}
    with pytest.raises(facts.ScratchError, match="CryptoError"):
        facts.held({**broken, "backup": []})


@pytest.mark.parametrize(
    ("same", "free", "keep", "reason"),
    [
        (True, 0, True, None),
        (False, 1 << 30, True, None),
        (False, 0, True, "make room, or add -e keep=false"),
        (False, 0, False, None),  # what is there now makes room
    ],
)
def test_a_restore_from_another_disk_needs_room(tmp_path, monkeypatch, same, free, keep, reason):
    restored = scratch.Scratch(facts.Host({"scratch": tmp_path / "scratch", "stanza": "main"}))
    monkeypatch.setattr(restored, "runs", lambda: False)
    place = tmp_path / "17/main"
    for folder, size in ((restored.data, 1 << 20), (place, 2 << 20)):
        folder.mkdir(parents=True)
        (folder / "base").write_bytes(b"x" * size)
    stat = scratch.Path.stat

    def stat_of_two_disks(path, **more):
        found = stat(path, **more)
        there = same or "17" not in path.parts
        return SimpleNamespace(st_dev=found.st_dev if there else found.st_dev + 1)

    with monkeypatch.context() as patch:
        patch.setattr(scratch.Path, "stat", stat_of_two_disks)
        patch.setattr(scratch.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        if reason:
            with pytest.raises(facts.ScratchError, match=reason):
                restored.fits(place, keep)
        else:
            assert restored.fits(place, keep) == {"copied": not same}


def test_what_a_restore_that_did_not_end_put_aside_makes_no_room(tmp_path, monkeypatch):
    restored = scratch.Scratch(facts.Host({"scratch": tmp_path / "scratch", "stanza": "main"}))
    monkeypatch.setattr(restored, "runs", lambda: False)
    place = tmp_path / "17/main"
    aside = place.with_name("main.replaced")
    for folder in (restored.data, place.parent, aside):
        folder.mkdir(parents=True)
    (restored.data / "base").write_bytes(b"x" * (1 << 20))
    (aside / "base").write_bytes(b"x" * (2 << 20))
    stat = scratch.Path.stat

    def stat_of_two_disks(path, **more):
        found = stat(path, **more)
        return SimpleNamespace(st_dev=found.st_dev + ("17" in path.parts))

    with monkeypatch.context() as patch:
        patch.setattr(scratch.Path, "stat", stat_of_two_disks)
        patch.setattr(scratch.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        assert restored.fits(place, keep=True) == {"copied": True}
        with pytest.raises(facts.ScratchError, match="make room"):
            restored.fits(place, keep=False, unended=True)


def test_a_restored_cluster_has_a_commit_after_the_target_for_a_restore_that_is_repeated(
    tmp_path, monkeypatch
):
    restored = scratch.Scratch(facts.Host({"scratch": tmp_path / "scratch", "stanza": "main"}))
    done = []

    def query(text):
        done.append(text)
        return [("000000020000000000000003",)]

    monkeypatch.setattr(restored, "said", lambda: scratch.PAUSED)
    monkeypatch.setattr(restored, "query", query)
    monkeypatch.setattr(restored, "wait", lambda check: check())
    monkeypatch.setattr(restored, "pg_ctl", lambda word, *_: done.append(word))
    monkeypatch.setattr(scratch, "RECOVERY", [])
    assert restored.promote() == {"timeline": 2}
    commit = next(at for at, text in enumerate(done) if "pg_logical_emit_message(true" in text)
    recovered = next(at for at, text in enumerate(done) if "NOT pg_is_in_recovery" in text)
    assert recovered < commit < done.index("stop")


def test_every_kind_of_difference_is_told():
    wanted = {"a": "1 rows, checksum 5", "b": "2 rows, checksum 6", "c": "0 rows, checksum 0"}
    found = {"a": "1 rows, checksum 5", "b": "2 rows, checksum 7", "d": "0 rows, checksum 0"}
    assert facts.differences(wanted, wanted) == []
    lines = facts.differences(wanted, found)
    assert [line.split(":")[0] for line in lines] == ["b", "c", "d"]


def test_buckets_are_copied_with_the_key_of_their_account():
    users = [
        {"account": "shop", "name": "app", "key": "one"},
        {"account": "shop", "name": "second", "key": "two"},
    ]
    buckets = [{"name": "uploads", "account": "shop"}, {"name": "lost", "account": "nobody"}]
    assert bucket_keys(buckets, users) == [
        {"bucket": "uploads", "key": "shop:app", "secret": "one"}
    ]


def test_each_repository_has_a_newest_backup():
    backups = [
        {"label": "a", "database": {"repo-key": 1}},
        {"label": "b", "database": {"repo-key": 2}},
        {"label": "c", "database": {"repo-key": 1}},
    ]
    assert newest_backups(backups, [1, 2, 3]) == ["c", "b", "no backup in repository 3"]


MONDAY = datetime(2026, 11, 16, tzinfo=UTC).timestamp()
CALENDARS = ["Sun *-*-* 02:00", "Mon..Sat *-*-* 02:00"]


def at(days, hours=0):
    return MONDAY + days * 86400 + hours * 3600


@pytest.mark.parametrize(
    ("stop", "proven", "now", "wrong"),
    [
        (at(1, 2.1), "newest", at(1, 12), None),
        (at(1, 2.1), "newest", at(2, 7), None),  # the next may still be on its way
        (at(1, 2.1), "newest", at(2, 9), "has no backup since 2026-11-17 02:06 UTC"),
        (at(1, 2.1), "older", at(1, 7), None),
        (at(1, 2.1), "older", at(1, 9), "newest is not proved: journalctl -u pgbackrest-check@2"),
        (at(1, 2.1), None, at(1, 9), "newest is not proved"),
        (None, None, at(1, 12), "repository 2 has no backup: playbooks/backup.yml"),
    ],
)
def test_a_backup_that_is_late_or_not_proved_has_a_note(
    tmp_path, monkeypatch, stop, proven, now, wrong
):
    host = facts.Host(
        {"scratch": tmp_path / "scratch", "stanza": "main", "calendars": CALENDARS}, 2
    )
    seen = host.state("seen")
    seen.write_text(json.dumps({"backup": "newest" if stop else None, "stop": stop}))
    os.utime(seen, (now - 600, now - 600))
    if proven:
        host.state("checked").write_text(json.dumps({"backup": proven}))
    monkeypatch.setattr(notes, "due", lambda since, _: (since // 86400 + 1) * 86400 + 7200)
    found = notes.kept(host, now)
    assert [wrong in line for line in found] == ([True] if wrong else [])
    (late,) = notes.kept(host, now + 4 * 3600)
    assert "repository 2 last looked at" in late


START = "0000000200000004000000FE"


@pytest.mark.parametrize(
    ("segments", "lacks"),
    [
        ([], None),  # nothing came since
        (
            ["0000000200000004000000FE", "0000000200000004000000FF", "000000020000000500000000"],
            None,
        ),
        # In a failover: what the old leader did not finish is on the new timeline, as a whole.
        (
            ["0000000200000004000000FE", "0000000300000004000000FF", "000000030000000500000000"],
            None,
        ),
        (["0000000200000004000000FE", "000000020000000500000000"], "0000000200000004000000FF"),
        (["0000000200000004000000FE", "000000030000000500000001"], "0000000200000004000000FF"),
        (["0000000200000004000000FF"], START),
        # A timeline that was left before the backup proves nothing.
        (["0000000200000004000000FE", "000000010000000500000001"], None),
    ],
)
def test_wal_that_an_archive_lacks_is_named(monkeypatch, segments, lacks):
    folders = {name[:16] for name in segments} | {"0000000200000003"}
    said = {"17-2": ["00000003.history", *folders]}
    for folder in folders:
        said[folder] = [f"{name}-da39.zst" for name in segments if name.startswith(folder)]
    said["0000000200000003"] = ["000000020000000300000001-da39.zst"]
    said.setdefault("0000000200000004", []).append("0000000200000004000000FF.partial-da39.zst")
    archives = [
        {"id": "17-1", "database": {"id": 1, "repo-key": 2}},
        {"id": "17-2", "database": {"id": 2, "repo-key": 2}},
    ]
    host = facts.Host({"stanza": "main"}, 2)
    monkeypatch.setattr(host, "info", lambda repository: {"archive": archives})
    monkeypatch.setattr(facts, "run", lambda *words: "\n".join(said[words[-1].rsplit("/", 1)[1]]))
    backup = {"database": {"id": 2, "repo-key": 2}, "archive": {"start": START}}
    assert host.gap(backup) == lacks


def test_wal_that_the_archive_lacks_has_a_note(tmp_path):
    host = facts.Host({"scratch": tmp_path / "scratch", "stanza": "main", "calendars": []})
    now = notes.time.time()
    host.keep("checked", {"backup": "newest"})
    for gap, wrong in [(None, []), (START, [True])]:
        host.keep("seen", {"backup": "newest", "stop": now, "gap": gap})
        assert [f"lacks WAL from {START} on" in line for line in notes.kept(host, now)] == wrong


def test_a_file_of_a_check_that_met_a_full_disk_is_as_good_as_none(tmp_path, monkeypatch):
    host = facts.Host({"scratch": tmp_path / "scratch", "stanza": "main"})
    host.state("seen").touch()
    assert host.kept("seen") == host.kept("checked") == {}
    (note,) = notes.kept(host, at(0))
    assert "not looked at yet" in note
    host.keep("checked", {"backup": "older"})

    def full(path, text):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(facts.Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        host.keep("checked", {"backup": "newest"})
    assert host.kept("checked") == {"backup": "older"}


def test_a_repository_that_nobody_looked_at_has_a_note(tmp_path):
    (note,) = notes.kept(facts.Host({"scratch": tmp_path / "scratch", "stanza": "main"}), at(0))
    assert note.startswith("repository 1 not looked at yet")


def test_backups_are_due_when_the_first_of_their_timers_says(monkeypatch):
    said = {
        CALENDARS[0]: "Normalized form: Sun *-*-* 02:00:00 UTC\n"
        "    Next elapse: Sun 2026-11-22 03:00:00 CET\n"
        "       (in UTC): Sun 2026-11-22 02:00:00 UTC\n",
        CALENDARS[1]: "    Next elapse: Wed 2026-11-18 02:00:00 UTC\n       From now: 3 days ago\n",
    }
    monkeypatch.setattr(notes, "says", lambda *words: said.get(words[-1], ""))
    assert notes.due(at(1, 3), CALENDARS) == at(2, 2)
    assert notes.due(at(1, 3), CALENDARS[:1]) == at(6, 2)
    assert notes.due(at(1, 3), ["nonsense"]) is None


def test_units_that_failed_are_named():
    shown = "\n\n".join(
        f"Id={name}.service\nLoadState={load}\nActiveState={active}\nSubState={sub}"
        for name, load, active, sub in [
            ("pgbackrest-full@1", "loaded", "inactive", "dead"),
            ("pgbackrest-diff@1", "loaded", "activating", "auto-restart"),
            ("pgbackrest-check@1", "loaded", "failed", "failed"),
            ("pgbackrest-backup@full", "not-found", "failed", "failed"),
        ]
    )
    assert notes.failed_units(shown) == ["pgbackrest-diff@1", "pgbackrest-check@1"]
    assert notes.failed_units("") == []
