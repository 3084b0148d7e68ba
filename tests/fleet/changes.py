"""Changes of the fleet under load, and inventories that grow and shrink."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.load import Running
from tests.fleet.support import LAB, STATE, Fleet

BEFORE, AFTER = 2, 5  # seconds of load on each side of a change


def needs_three(fleet: Fleet) -> None:
    """Skip where a tier of data has no quorum that survives the loss of a host."""
    for tier in ("db", "redis", "storage"):
        if len(fleet.groups[tier]) < 3:
            pytest.skip(f"tier {tier} has no quorum that survives the loss of a host")


@contextmanager
def change_under_load(fleet: Fleet, **options: Any) -> Iterator[Running]:
    """The load of the acceptance tests with keys only, as for faults."""
    with fleet.load(unkeyed=0, **options) as load:
        time.sleep(BEFORE)
        yield load
        time.sleep(AFTER)


class Meanwhile:
    """Repeats `step` in a thread of its own, `pause` seconds apart, until its block ends."""

    pause = 0.1

    def __enter__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(self.pause):
            self.step()


def members(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """PostgreSQL's members by name, as Patroni has them."""
    host = fleet.groups["db"][-1]
    said = fleet.ssh(host, f"curl -fsS -m 5 http://{fleet.addresses[host]}:8008/cluster")
    return {member["name"]: member for member in json.loads(said)["members"]}


def in_step(fleet: Fleet) -> bool:
    """Whether every standby has all that is acknowledged."""
    roles = [member["role"] for member in members(fleet).values()]
    return sorted(roles) == ["leader"] + ["quorum_standby"] * (len(fleet.groups["db"]) - 1)


def holder(fleet: Fleet) -> str | None:
    """The balancer that has the virtual IP."""
    address = fleet.url.removeprefix("https://")
    for host in fleet.groups["lb"]:
        if f" {address}/" in fleet.ssh(host, "ip -4 -o address show"):
            return host
    return None


def copy_of_lab(name: str) -> Path:
    """A copy of the lab's inventory; under .lab, from where it finds the SSH configuration."""
    copy = STATE / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(LAB, copy)
    return copy


def edit_hosts(inventory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the tiers of an inventory."""
    path = inventory / "hosts.yml"
    content = yaml.safe_load(path.read_text())
    change(content["all"]["children"])
    path.write_text(yaml.safe_dump(content))


def forget(inventory: Path, tier: str, host: str) -> None:
    """Delete a host from an inventory."""
    edit_hosts(inventory, lambda tiers: tiers[tier]["hosts"].pop(host))
