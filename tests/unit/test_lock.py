"""The lock of a deploy: held as long as its playbook lives, left when that is gone."""

import os
import socket
import subprocess

import pytest

from plugins.filter import lock


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
