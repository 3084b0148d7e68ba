"""`make up`: from nothing to a fleet that serves, with the time that each step took."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import files
from lab.containers import Lab
from lab.inventory import Inventory, LabError


def bring_up(lab: Lab, path: Path) -> None:
    """Make the hosts of the inventory at `path`, converge them, check the site.

    Raises LabError when a step fails; what is done stays, so that a repeat goes on from there.
    """
    times: dict[str, float] = {}

    @contextmanager
    def step(title: str, expect: str) -> Iterator[None]:
        print(f"==> {title} ({expect})", flush=True)
        start = time.monotonic()
        yield
        times[title] = time.monotonic() - start

    files.fill_secrets(path / "group_vars/all/secrets.yml")
    inventory = Inventory.read(path)
    gone = lab.existing().keys() - {lab.container(host) for host in inventory.hosts}
    if gone:  # a tier that lost members like that may have no quorum
        print(f"==> The lab that is up has {', '.join(sorted(gone))} too: make it anew", flush=True)
        lab.down()
    with step("Make the hosts", "10 s, and 30 s more when the image must be built"):
        lab.up(inventory)
        files.write_env(inventory, path)
    with step("Converge them with playbooks/site.yml", "3 to 10 minutes the first time"):
        run = subprocess.run(
            ["ansible-playbook", "playbooks/site.yml", "-i", str(path)],
            cwd=files.ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(files.ROOT / "ansible.cfg")},
        )
        if run.returncode:
            raise LabError("site.yml failed: the reason stands above; `make up` again goes on")
    with step("Check the site through the balancer", "1 s"):
        seen = check(f"https://{inventory.virtual_ip}", files.STATE / "ca/ca.pem")

    print("\nThe fleet serves.\n")
    for host in inventory.hosts:
        print(f"  {host.name:<10} {host.address}")
    print(f"\n  address    https://{inventory.virtual_ip}   (CA: .lab/ca/ca.pem)")
    print(f"  answering  release {seen['release']}, from {', '.join(seen['hosts'])}")
    print(f"  look in    ssh -F .lab/ssh_config app1; make status INVENTORY={path}\n")
    for title, seconds in times.items():
        print(f"  {seconds:6.1f} s  {title}")


def check(url: str, ca: Path) -> dict:
    """Ask /whoami through the balancer until it answers, 60 s at most.

    Returns the release and the hosts that answered. Raises LabError when none does.
    """
    context = ssl.create_default_context(cafile=str(ca))
    deadline, hosts, last = time.monotonic() + 60, set(), None
    while time.monotonic() < deadline:
        try:
            for _ in range(12):
                with urllib.request.urlopen(f"{url}/whoami", timeout=10, context=context) as answer:  # noqa: S310
                    body = json.load(answer)
                    hosts.add(body["host"])
            return {"release": body["release"], "hosts": sorted(hosts)}
        except (OSError, ValueError) as error:
            last = error
            time.sleep(1)
    raise LabError(f"{url}/whoami does not answer: {last}; try `make status`")
