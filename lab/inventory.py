"""What the lab reads from an Ansible inventory: names, addresses, Debian releases."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path


class LabError(Exception):
    """A mistake or an obstacle that the operator can act on; printed as one line."""


@dataclass(frozen=True)
class Host:
    """One host of the inventory, as a container will be made of it."""

    name: str
    address: str
    release: str
    disks: tuple[tuple[str, str], ...] = ()  # path and size of each small disk of its own


@dataclass(frozen=True)
class Inventory:
    """The hosts of one inventory, and the network that holds all their addresses."""

    path: Path
    hosts: list[Host]
    network: ipaddress.IPv4Network
    virtual_ip: str | None

    @classmethod
    def read(cls, path: Path) -> Inventory:
        """Read `path` with ansible-inventory.

        Raises LabError when it can't be read, has no hosts, or spans more than one /24.
        """
        run = subprocess.run(
            ["ansible-inventory", "-i", str(path), "--list"], capture_output=True, text=True
        )
        if run.returncode:
            raise LabError(f"{path} is not an inventory: {run.stderr.strip().splitlines()[-1]}")
        hostvars = json.loads(run.stdout)["_meta"]["hostvars"]
        hosts = [
            Host(
                name,
                facts.get("ansible_host", ""),
                facts.get("lab_release", "trixie"),
                tuple(sorted(facts.get("lab_disks", {}).items())),
            )
            for name, facts in sorted(hostvars.items())
            if facts.get("ansible_connection") != "local"
        ]
        if not hosts:
            raise LabError(f"{path} has no hosts")
        networks = set()
        for host in hosts:
            try:
                networks.add(ipaddress.ip_network(f"{host.address}/24", strict=False))
            except ValueError as error:
                raise LabError(f"{host.name} in {path}: ansible_host: {error}") from None
        if len(networks) != 1:
            raise LabError(f"{path}: the lab needs all addresses in one /24, not {networks}")
        virtual_ip = next(iter(hostvars.values())).get("fleet_virtual_ip")
        return cls(path, hosts, networks.pop(), virtual_ip)
