"""Containers and their network, by Podman: made, kept, repaired and removed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from lab import disks, files, image
from lab.inventory import Host, Inventory, LabError

LABEL = "evenkeel.lab"
# Every systemd watches files; the kernel's default of 128 watchers is gone after 15 hosts.
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances"), 8192
CAPABILITIES = "NET_ADMIN,NET_RAW,SYS_PTRACE"  # firewall, virtual IP, profiling


def podman(*args: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess:
    """Run podman; raise LabError with its last words when it fails or hangs."""
    try:
        run = subprocess.run(["podman", *args], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        if check:
            raise LabError(f"podman {args[0]} hung for {timeout:.0f} s") from None
        return subprocess.CompletedProcess(args, 124, "", "timeout")
    if check and run.returncode:
        raise LabError(f"podman {' '.join(args[:3])}: {run.stderr.strip()[-500:]}")
    return run


def working_runtime(image_name: str) -> str:
    """Name of the first OCI runtime that can start a container here.

    crun refuses machines with hybrid cgroup hierarchies, runc does not.
    """
    errors = []
    for runtime in ("crun", "runc"):
        trial = podman(
            "run", "--rm", "--runtime", runtime, "--systemd=always", "--network=none",
            *limits(), image_name, "/bin/true", check=False, timeout=60,
        )  # fmt: skip
        if trial.returncode == 0:
            return runtime
        errors.append(f"{runtime}: {trial.stderr.strip()[-200:]}")
    raise LabError("no OCI runtime starts a container here: " + "; ".join(errors))


def limits() -> list[str]:
    """Podman's --ulimit options: generous, but not above what this process may set."""
    options = []
    for name, kind, wanted in (
        ("nofile", resource.RLIMIT_NOFILE, 1048576),
        ("nproc", resource.RLIMIT_NPROC, 32768),
    ):
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        options += ["--ulimit", f"{name}={value}:{value}"]
    return options


def allow_watchers() -> None:
    """Raise this machine's limit of inotify instances, where it is low and may be raised."""
    setting, wanted = INOTIFY
    if int(setting.read_text()) < wanted:
        with suppress(OSError):
            setting.write_text(str(wanted))


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for other labs of this machine that make what all share: keys, images, networks."""
    with Path(tempfile.gettempdir(), "evenkeel-lab.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Lab:
    """The containers of one inventory."""

    # What happens to a host: it is shut down, loses its power, hangs; boots, goes on.
    DEEDS: ClassVar = {
        "stop": ("stop",),
        "kill": ("kill",),
        "freeze": ("pause",),
        "start": ("start",),
        "thaw": ("unpause",),
    }

    def __init__(self, name: str):
        """Labs are told apart by `name`; the one named lab has containers named as its hosts."""
        self.name = name
        self.network = "evenkeel" if name == "lab" else f"evenkeel-{name}"

    def container(self, host: Host) -> str:
        """Name of the container of `host`."""
        return self._named(host.name)

    def _named(self, name: str) -> str:
        return name if self.name == "lab" else f"{self.name}-{name}"

    def do(self, what: str, hosts: list[str]) -> None:
        """Do one of DEEDS to hosts, all at once; on one that is so already nothing happens."""
        names = [self._named(host) for host in hosts]
        if what in ("start", "thaw"):
            # It fails for those that are not paused; what counts is that none is any more.
            podman("unpause", *names, check=False)
            shown = podman("inspect", "--format", "{{.Name}} {{.State.Status}}", *names).stdout
            frozen = [line.split()[0] for line in shown.splitlines() if line.endswith(" paused")]
            if frozen:
                raise LabError(f"still frozen: {', '.join(frozen)}")
        if what != "thaw":
            podman(*self.DEEDS[what], *names, timeout=300)

    def existing(self) -> dict[str, str]:
        """Containers of this lab by name, each with the hash of what it was made from."""
        listed = podman(
            "ps", "-a", "--filter", f"label={LABEL}={self.name}", "--format", "json"
        ).stdout
        return {
            c["Names"][0]: c["Labels"].get(f"{LABEL}.spec", "") for c in json.loads(listed or "[]")
        }

    def up(self, inventory: Inventory) -> None:
        """Make what is missing, start what is stopped, replace what is broken or outdated."""
        allow_watchers()
        with one_at_a_time():
            files.prepare(inventory if self.name == "lab" else None)
            images = {suite: image.ensure(suite) for suite in {h.release for h in inventory.hosts}}
            runtime = working_runtime(next(iter(images.values())))
            self._ensure_network(inventory)
        existing = self.existing()
        for stray in existing.keys() - {self.container(host) for host in inventory.hosts}:
            podman("rm", "-f", "-t", "0", stray)
            disks.remove(stray)
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(
                    lambda host: self._ensure(
                        host,
                        self._arguments(host, images[host.release], runtime),
                        existing.get(self.container(host)),
                    ),
                    inventory.hosts,
                )
            )
            list(pool.map(self._wait, inventory.hosts))

    def down(self) -> None:
        """Remove the lab's containers and network; nothing to remove is no error."""
        names = list(self.existing())
        if names:
            podman("rm", "-f", "-t", "0", "-v", *names, timeout=300)
        for name in {*names, *self._lost_disks()}:
            disks.remove(name)
        if podman("network", "exists", self.network, check=False).returncode == 0:
            podman("network", "rm", "-f", self.network)

    def _lost_disks(self) -> list[str]:
        """Containers of this lab that are gone, or were never made, and have disks."""
        mine = "" if self.name == "lab" else f"{self.name}-"
        return [
            name
            for name in disks.owners()
            if name.startswith(mine)
            and podman("container", "exists", name, check=False).returncode == 1
        ]

    def _ensure_network(self, inventory: Inventory) -> None:
        subnet = str(inventory.network)
        found = podman("network", "inspect", self.network, check=False)
        if found.returncode == 0:
            if json.loads(found.stdout)[0]["subnets"][0]["subnet"] == subnet:
                return
            self.down()
        podman("network", "create", "--subnet", subnet, "--label", f"{LABEL}={self.name}",
               self.network)  # fmt: skip

    def _arguments(self, host: Host, image_name: str, runtime: str) -> list[str]:
        # As with a machine, an address keeps its card: neighbours remember where it was.
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in host.address.split("."))
        return [
            "--runtime", runtime, "--systemd=always", "--stop-signal", "SIGRTMIN+3",
            "--network", self.network, "--ip", host.address, "--mac-address", card,
            "--hostname", host.name,
            "--no-hosts", "--cap-add", CAPABILITIES, "--shm-size", "256m", *limits(),
            "-v", f"{files.HOST_FILES}:/etc/evenkeel-lab:ro",
            *(f"--volume={disks.mount_point(self.container(host), path)}:{path}"
              for path, _ in host.disks),
            image_name, "/sbin/init",
        ]  # fmt: skip

    def _ensure(self, host: Host, arguments: list[str], made_from: str | None) -> None:
        name = self.container(host)
        spec = hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]
        if made_from == spec:
            for path, size in host.disks:
                disks.ensure(name, path, size)
            podman("unpause", name, check=False, timeout=20)
            if (
                podman("start", name, check=False, timeout=60).returncode == 0
                and podman("exec", name, "true", check=False, timeout=20).returncode == 0
            ):
                return
        podman("rm", "-f", "-t", "0", "-v", name, check=False)
        disks.remove(name)
        for path, size in host.disks:
            disks.ensure(name, path, size)
        podman("run", "-d", "--name", name, "--label", f"{LABEL}={self.name}",
               "--label", f"{LABEL}.spec={spec}", *arguments)  # fmt: skip

    def _wait(self, host: Host) -> None:
        deadline = time.monotonic() + 90
        name = self.container(host)
        while time.monotonic() < deadline:
            state = podman("exec", name, "systemctl", "is-system-running", check=False, timeout=20)
            if state.stdout.strip() in ("running", "degraded") and _speaks_ssh(host.address):
                return
            time.sleep(0.3)
        raise LabError(f"{name} did not boot: look at `podman logs {name}` and `podman exec {name} "
                       f"systemctl list-jobs`; it is {state.stdout.strip()}")  # fmt: skip


def _speaks_ssh(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), 2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
