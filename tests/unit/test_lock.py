"""The lock of a deploy: held as long as its playbook lives, left when that is gone."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from plugins.filter import lock

ROOT = Path(__file__).parents[2]
# What the hosts' commands do, each with a directory in place of the host.
COMMANDS = {
    "systemctl": """case $1 in
        show) cat "$STATE/lock" 2>/dev/null || echo shop-deploy.service;;
        stop) rm -f "$STATE/lock";;
        esac""",
    "systemd-run": """test ! -e "$STATE/lock" || exit 1
        for word; do
            case $word in --description=*) echo "${word#*=}" >"$STATE/lock";; esac
        done""",
    "nft": """case $1 in
        list) test -e "$STATE/drained-$HOST";;
        -f) rm "$STATE/drained-$HOST";;
        esac""",
}


@pytest.fixture
def other():
    """Another playbook on this machine, and what its lock says."""
    process = subprocess.Popen(["sleep", "60"])
    yield process, f"ann at laptop, since 2026-11-21 12:00 UTC [{lock.lock_process(process.pid)}]"
    process.kill()
    process.wait()


@pytest.fixture
def mine():
    return lock.lock_process(os.getpid())


def test_a_lock_is_held_while_its_process_lives(other, mine):
    _, said = other
    assert not lock.lock_left(said, mine)
    assert mine not in said


def test_a_lock_is_left_when_its_process_is_gone(other, mine):
    process, said = other
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert lock.lock_left(said, mine), "a process that nobody has waited for is gone, too"
    process.wait()
    assert lock.lock_left(said, mine)


def test_a_process_that_got_the_number_is_another_one(other, mine):
    process, said = other
    assert lock.lock_left(said.replace(" " + lock.lock_process(process.pid).split()[2], " 1"), mine)


def test_a_lock_of_another_machine_is_held(other, monkeypatch):
    process, said = other
    process.kill()
    process.wait()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert not lock.lock_left(said, lock.lock_process(os.getpid()))


@pytest.mark.parametrize("said", ["", "shop-deploy.service", "ann, by hand"])
def test_what_is_no_lock_was_left_by_nobody(said, mine):
    assert not lock.lock_left(said, mine)


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def refuse():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(lock.getpass, "getuser", refuse)
    assert lock.lock_user() == f"user {os.getuid()} at {socket.gethostname()}"


@pytest.fixture
def play(tmp_path):
    """Run steps of playbooks/tasks on two app hosts, which are directories here."""
    for name, script in COMMANDS.items():
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    (tmp_path / "hosts.yml").write_text("app: {hosts: {app1: , app2: }}")

    def run(*steps, **variables):
        tasks = [{"include_tasks": f"{ROOT}/playbooks/tasks/{step}.yml"} for step in steps]
        surroundings = {"STATE": str(tmp_path), "HOST": "{{ inventory_hostname }}"}
        told = {"ansible_connection": "local", "app_name": "shop", **variables}
        given = {"hosts": "app", "environment": surroundings, "vars": told, "tasks": tasks}
        (tmp_path / "play.yml").write_text(json.dumps([given]))
        return subprocess.run(
            ["ansible-playbook", "-i", tmp_path / "hosts.yml", tmp_path / "play.yml"],
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                 "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return run


def test_who_has_the_lock_is_alone_until_it_lets_go(play, tmp_path):
    done = play("lock")
    assert done.returncode == 0, done.stdout
    assert "[" in (tmp_path / "lock").read_text()
    done = play("lock", "unlock")  # the first one has ended
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "lock").exists()
    (tmp_path / "lock").write_text("ann at laptop, since 12:00 [0123456789ab 1 1]")
    done = play("lock")
    assert done.returncode != 0
    assert "is under way (ann at laptop, since 12:00): wait for it" in " ".join(done.stdout.split())


@pytest.mark.parametrize(("step", "variables"), [("lock", {}), ("standing", {"drain_tier": "app"})])
def test_a_drain_that_an_interrupted_run_left_ends_before_another_begins(
    play, tmp_path, step, variables
):
    left = tmp_path / "drained-app2"
    left.touch()
    done = play(step, **variables)
    assert done.returncode == 0, done.stdout
    assert not left.exists(), "with app1 drained, too, nobody would serve"
    done = play(step, **variables)
    assert "changed=1" not in done.stdout, "a second run of site.yml changes nothing"


@pytest.mark.parametrize(
    ("playbook", "change"),
    [
        ("app", "name: app\n"),
        ("deploy", "tasks_from: ship"),
        ("restart", "tasks/restart.yml"),
        ("rollback", "switch.yml"),
    ],
)
def test_what_changes_the_app_hosts_takes_the_lock_first(playbook, change):
    text = (ROOT / f"playbooks/{playbook}.yml").read_text()
    assert text.index("tasks/lock.yml") < text.index(change)
    last = (ROOT / "playbooks/switch.yml").read_text() if "switch.yml" in text else text
    assert "tasks/unlock.yml" in last
