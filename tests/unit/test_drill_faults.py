"""What a drill breaks on a host: how it is made, mended, and waited for."""

import os
import re
import signal
import subprocess

import pytest
from ansible.module_utils import drill_faults as faults

from plugins.filter import drill as filters
from tests.unit.drills import DRILLS


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
