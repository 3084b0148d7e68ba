"""Fixtures of the fleet tests: they need a lab that `make up` left running."""

import shutil

import pytest

from tests.fleet import talk
from tests.fleet.changes import copy_of_lab
from tests.fleet.support import ENV, LOGS, ROOT, Fleet


@pytest.fixture(scope="session")
def fleet():
    if not ENV:
        pytest.exit("there is no lab: run `make up` first", returncode=1)
    shutil.rmtree(LOGS, ignore_errors=True)
    fleet = Fleet.lab()
    fleet.wait_all_answer()
    return fleet


@pytest.fixture(scope="module")
def client(fleet):
    """A client of the site, logged in as the admin."""
    with fleet.authorized() as session:
        yield session


@pytest.fixture(scope="session")
def script(tmp_path_factory):
    """The program of people who talk."""
    return talk.install(tmp_path_factory.mktemp("realtime") / "clients")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Return a function that makes a copy of refapp with a line more."""

    def copy(text):
        target = tmp_path_factory.mktemp("release") / "refapp"
        ignored = shutil.ignore_patterns("__pycache__", "tests", ".*")
        shutil.copytree(ROOT / "refapp", target, ignore=ignored)
        with (target / "src/refapp/wsgi.py").open("a") as module:
            module.write(text)
        return str(target)

    return copy


@pytest.fixture
def inventory():
    """A copy of the lab's inventory, to make mistakes in."""
    copy = copy_of_lab("wrong")
    yield copy
    shutil.rmtree(copy)
