"""Faults of one host: how each is made, mended, and seen to be gone."""

from __future__ import annotations

import errno
import ipaddress
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

from ansible.module_utils.common.text.formatters import human_to_bytes

TIMER = "evenkeel-drill-undo"
TABLE = "evenkeel_drill"
FILLER = ".evenkeel-drill"
PAUSE = 0.5  # seconds between two looks
HEALS = {"KILL", "TERM"}  # systemd starts the process anew


class FaultError(Exception):
    """The fault can't be made here."""


def run(*argv, check=True, **options):
    """Run a command; give what it prints."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=60, **options
        )
    except subprocess.TimeoutExpired as error:
        raise FaultError(f"{shlex.join(argv)}: hung") from error
    if check and done.returncode:
        raise FaultError(f"{shlex.join(argv)}: {done.stderr.strip()[-300:]}")
    return done.stdout


def children(pid):
    """Give the processes that a process started."""
    return [int(child) for child in run("pgrep", "-P", str(pid), check=False).split()]


def rules(params):
    """Give the nftables rules of a cut.

    ARP goes on, so that SSH does, but not for an address that two hosts may hold: keepalived
    would still announce it.
    """
    own, hook = params["address"], "type filter hook {} priority -20; policy accept"
    four = [n for n in params["operators"] if ipaddress.ip_network(n, strict=False).version == 4]
    six = [n for n in params["operators"] if ipaddress.ip_network(n, strict=False).version == 6]
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for way, side, port, loop in (
        ("in", "saddr", "dport", "iif"), ("out", "daddr", "sport", "oif"),
    ):  # fmt: skip
        if params["ways"] in ("both", way):
            spared = [
                f"{family} {side} {{ {', '.join(networks)} }} tcp {port} 22 accept"
                for family, networks in (("ip", four), ("ip6", six))
                if networks
            ]
            lines += [f"chain {way} {{", hook.format(f"{way}put"), f"{loop} lo accept", *spared]
            lines += ["drop", "}"]
    lines.append("}")
    if own and params["ways"] in ("both", "out"):
        route = run("ip", "-o", "address", "show", "to", own).split()
        egress = f"type filter hook egress device {route[1]} priority 0; policy accept"
        # Raw packets, which keepalived sends, pass no other hook.
        lines += [f"table netdev {TABLE}", f"delete table netdev {TABLE}"]
        lines += [f"table netdev {TABLE} {{", "chain out {", egress]
        lines += [f"arp saddr ip != {own} drop", "}", "}"]
    return "\n".join(lines) + "\n"


class Fault:
    """One way to break a host."""

    def __init__(self, params):
        self.params, self.units = params, params["units"]

    def undo(self):
        """Give the shell command that mends it, nothing where it mends by itself."""
        units = shlex.join(self.units)
        return {
            "signal": "" if self.params["signal"] in HEALS else
                      f"systemctl kill --kill-whom=all --signal=CONT {units}",
            "service": f"systemctl start --no-block {units}",
            # A table can only be deleted when it is there.
            "cut": "nft " + shlex.quote("; ".join(
                f"{verb} table {family} {TABLE}"
                for family in ("netdev", "inet") for verb in ("add", "delete"))),
            "full": "rm -f " + shlex.join(f"{path}/{FILLER}" for path in self.params["paths"]),
            "empty": f"systemctl start {units}",
        }[self.params["how"]]  # fmt: skip

    def arm(self):
        """Set the timer that mends the host when nobody does."""
        self.disarm()
        if self.undo():
            run(
                "systemd-run", "--quiet", "--collect", f"--unit={TIMER}",
                f"--on-active={self.params['within']}s", "/bin/sh", "-c", self.undo(),
            )  # fmt: skip

    @staticmethod
    def disarm():
        """Take the timer away."""
        run("systemctl", "stop", f"{TIMER}.timer", check=False)
        run("systemctl", "reset-failed", f"{TIMER}.service", check=False)

    def victims(self):
        """Give the processes that a signal goes to."""
        if self.params["pid_file"]:
            return [int(Path(self.params["pid_file"]).read_text().split()[0])]
        shown = run("systemctl", "show", "--property=MainPID", "--value", *self.units)
        mains = [int(pid) for pid in shown.split() if int(pid) > 0]
        found = {"main": mains, "all": [p for m in mains for p in (m, *children(m))]}.get(
            self.params["whom"], [child for main in mains for child in children(main)][:1]
        )
        if not found:
            raise FaultError(f"no process of {self.units} runs")
        return found

    def prepare(self):
        """Give the steps that break it, each as (what, call), once all is known to be possible."""
        how = self.params["how"]
        if how == "signal":
            number = getattr(signal, f"SIG{self.params['signal']}")
            return [(f"{number.name} to {pid}", lambda pid=pid: os.kill(pid, number))
                    for pid in self.victims()]  # fmt: skip
        if how == "cut":
            text = rules(self.params)
            return [(f"cut {self.params['ways']}", lambda: run("nft", "-f", "-", input=text))]
        if how == "full":
            return [self.filling(Path(path)) for path in self.params["paths"]]
        wait = [] if how == "empty" else ["--no-block"]
        stop = [(f"stopped {unit}", lambda unit=unit: run("systemctl", "stop", *wait, unit))
                for unit in self.units]  # fmt: skip
        if how == "service":
            return stop
        start = [(f"started {unit}", lambda unit=unit: run("systemctl", "start", unit))
                 for unit in self.units]  # fmt: skip
        return [*stop, *((f"emptied {p}", lambda p=p: empty(p)) for p in self.params["paths"]),
                *start]  # fmt: skip

    def filling(self, path):
        """Give the step that takes all room beside a directory."""
        room = os.statvfs(path)
        size, most = room.f_bavail * room.f_frsize, human_to_bytes(self.params["most"])
        if size > most:
            raise FaultError(f"{path} has {size >> 20} MiB of room, and a drill may take "
                             f"{self.params['most']}: see drill_fill_most")  # fmt: skip
        return f"took {size >> 20} MiB of {path}", lambda: fill(path / FILLER, size)

    def mend(self):
        """Mend it now; mending what is whole changes nothing."""
        if self.undo():
            run("/bin/sh", "-c", self.undo())

    def whole(self, patience):
        """Wait until it is mended.

        The timer stays until all is whole, so that it tries once more what failed here.
        """
        limit = time.monotonic() + patience
        while left := self.broken() if self.undo() else []:
            if time.monotonic() > limit:
                raise FaultError(f"still broken: {', '.join(left)}")
            time.sleep(PAUSE)
        self.disarm()

    def broken(self):
        """Give what is not whole."""
        how = self.params["how"]
        if how == "cut":
            return [line for line in run("nft", "list", "tables").splitlines() if TABLE in line]
        if how == "full":
            fillers = [Path(path) / FILLER for path in self.params["paths"]]
            return [str(filler) for filler in fillers if filler.exists()]
        if how == "signal":
            shown = run("systemctl", "show", "--property=MainPID", "--value", *self.units)
            return [f"process {pid}" for pid in shown.split() if int(pid) > 0 and stopped(pid)]
        states = {u: run("systemctl", "is-active", u, check=False).strip() for u in self.units}
        return [unit for unit, state in states.items() if state != "active"]


def stopped(pid):
    """Say whether a process is stopped by a signal; one that is gone is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def fill(path, size):
    """Make a file of all the room there is: most at once, the rest until no block is left."""
    # The file system wants some for its own accounts of so large a file.
    run("fallocate", "--length", str(max(size * 99 // 100 - (4 << 20), 1)), str(path))
    with path.open("ab", buffering=0) as file:
        for block in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(block))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def empty(path):
    """Remove what a directory holds."""
    for entry in Path(path).iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
