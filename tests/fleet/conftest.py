"""Fixtures of the fleet tests: they need a lab that `make up` left running."""

import shutil

import pytest

from tests.fleet.support import ENV, LAB, LOGS, STATE, Fleet


@pytest.fixture(scope="session")
def fleet():
    if not ENV:
        pytest.exit("there is no lab: run `make up` first", returncode=1)
    shutil.rmtree(LOGS, ignore_errors=True)
    fleet = Fleet.lab()
    fleet.wait_all_answer()
    return fleet


@pytest.fixture
def inventory():
    """A copy of the lab's inventory, to make mistakes in."""
    # Under .lab, because its files find the lab's SSH configuration from two levels up.
    copy = STATE / "wrong"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(LAB, copy)
    yield copy
    shutil.rmtree(copy)
