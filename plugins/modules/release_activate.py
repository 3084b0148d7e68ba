#!/usr/bin/python
"""Make a release live on a host: rehearsed, beside the old one on its sockets, then alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_activate
short_description: Make an installed release live on a host, restart it, or watch it
description:
  - I(active) first runs the release on private sockets alone and asks it whether it is ready, then
    starts it beside the live one on the shared sockets, and stops the old one when the new one
    answers. A release that is not ready is stopped; it never took a request.
  - I(restarted) restarts the live release in place; its sockets hold what arrives meanwhile.
  - I(described) changes nothing and says what is live, what was before, and what is outdated.
  - I(watched) fails when the live release stops, restarts or stops answering within I(watch).
options:
  name: {description: Name of the application., type: str, required: true}
  root: {description: Directory of the application on the host., type: path, required: true}
  units: {description: Units of the process types., type: list, elements: dict, required: true}
  release: {description: Id of an installed release; empty means the live one., type: str}
  state:
    description: What to do.
    type: str
    choices: [active, restarted, watched, described]
    default: active
  timeout: {description: Seconds until a release must answer., type: int, default: 60}
  watch: {description: Seconds to watch., type: int, default: 0}
  keep: {description: Releases to keep., type: int, default: 5}
  back:
    description: Go back in the history of releases instead of adding to it.
    type: bool
    default: false
author: Evenkeel
"""

EXAMPLES = r"""
- name: Make the release live
  release_activate:
    name: refapp
    root: /srv/refapp
    release: 0123456789ab
    units: [{unit: refapp-web, listen: 8000, probe: /readyz, handover: socket}]
"""

RETURN = r"""
live: {description: Release that is live now., returned: success, type: str}
previous: {description: Release that was live before it., returned: success, type: str}
releases: {description: Releases on the host., returned: when described, type: list}
outdated: {description: Whether what runs is older than its settings., returned: when described}
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

SYSTEMD = Path("/etc/systemd/system")
RUNTIME = Path("/run/systemd/system")
SETTLE = 2  # seconds that a process without a probe must stay up


class ActivationError(Exception):
    """The release did not come up; the message is one line, the journal goes with it."""

    def __init__(self, message, unit=None):
        super().__init__(message)
        self.unit = unit


def systemctl(*arguments, check=True):
    """Run systemctl; a unit that can't stop in its own time is killed by systemd, not by us."""
    argv = ("systemctl", *arguments)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ActivationError(f"{' '.join(argv)}: {told[0] if told else done.returncode}")
    return done.stdout.strip()


def show(unit, name):
    """Read one property of a unit."""
    return systemctl("show", "--value", f"--property={name}", unit)


def journal(unit, lines=20):
    """Read what a unit said last."""
    argv = ("journalctl", "--unit", unit, "--output=cat", "--no-pager", "-n", str(lines))
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def cause(lines):
    """Find the error that a journal names last, in plain text or inside a structured line."""
    pattern = r"(?:\\n)?([\w.]*(?:Error|Exception): [^\"\\]+)"
    found = [text.strip() for line in lines for text in re.findall(pattern, line)]
    return f" ({found[-1]})" if found else ""


class Probe(http.client.HTTPConnection):
    """One GET over a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(path, url, timeout=5):
    """Ask a release if it is ready: None, or what it said instead of 200."""
    connection = Probe(path, timeout)
    try:
        # As the balancer would ask: an app that sends clients to HTTPS answers this one.
        headers = {"X-Forwarded-Proto": "https", "User-Agent": "evenkeel-probe"}
        connection.request("GET", url, headers=headers)
        answer = connection.getresponse()
        body = " ".join(answer.read(300).decode(errors="replace").split())
        return None if answer.status == 200 else f"{answer.status} {body}".strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


class Activation:
    """The steps on one host, with what is needed to undo them."""

    def __init__(self, name, root, units, release, timeout):
        self.name, self.root, self.timeout = name, Path(root), timeout
        self.beside = [unit for unit in units if unit["handover"] == "socket"]
        self.after = [unit for unit in units if unit["handover"] != "socket"]
        self.units = self.beside + self.after
        self.previous = self.live()
        self.release = release or self.previous

    def live(self):
        """Id of the release that `current` points at."""
        try:
            return Path(os.readlink(self.root / "current")).name
        except FileNotFoundError:
            return None

    def service(self, unit, release=None):
        """Name of the instance of a unit."""
        return f"{unit['unit']}@{release or self.release}.service"

    def services(self, units, release=None):
        """Names of the instances, and of their private sockets, which go down with them."""
        release = release or self.release
        probes = [f"{unit['unit']}-probe@{release}.socket" for unit in units if unit["probe"]]
        return [self.service(unit, release) for unit in units] + probes

    def is_live(self):
        """Say whether there is nothing to do."""
        return self.previous == self.release and not any(map(self.missing, self.units))

    def missing(self, unit):
        """Say whether a unit doesn't run, or would not after a boot: its type may be new."""
        service = self.service(unit)
        return (
            show(service, "ActiveState") != "active"
            or systemctl("is-enabled", service, check=False) != "enabled"
        )

    def wait(self, unit):
        """Wait until a unit answers its probe; one without a probe must stay up."""
        service, said = self.service(unit), "nothing"
        started, run = time.monotonic(), show(service, "InvocationID")
        while time.monotonic() - started < self.timeout:
            state = show(service, "ActiveState")
            # A question on its socket starts a service again that died: it is another run then.
            if state in ("failed", "inactive") or show(service, "InvocationID") != run:
                raise ActivationError(f"{service} stopped as it started", service)
            if unit["probe"]:
                path = f"/run/{self.name}/{unit['type']}-{self.release}.sock"
                said = ask(path, unit["probe"])
                if said is None:
                    return
            elif time.monotonic() - started > SETTLE:
                return
            time.sleep(0.2)
        waited = f"within {self.timeout} s; it said {said}"
        raise ActivationError(
            f"{service} did not answer {unit['probe']} with 200 {waited}", service
        )

    def rehearse(self):
        """Run the release on its private sockets alone: one that isn't ready takes no request."""
        probed = [unit for unit in self.units if unit["probe"]]
        for unit in probed:
            text = (SYSTEMD / f"{unit['unit']}@.service").read_text()
            text = text.replace(f"Sockets={unit['unit']}.socket ", "Sockets=")
            # Not restarted: its crash loop would be the shared socket's, too.
            text = text.replace("Restart=always", "Restart=no")
            (RUNTIME / self.service(unit)).write_text(text)
        systemctl("daemon-reload")
        try:
            self.start(probed)
            systemctl("stop", *[self.service(unit) for unit in probed])
        finally:
            self.end_rehearsal()

    def end_rehearsal(self):
        """Take the private form of the units away, also what an interrupted run left."""
        for unit in self.units:
            (RUNTIME / self.service(unit)).unlink(missing_ok=True)
        systemctl("daemon-reload")

    def name_sockets(self, release):
        """Name the instance that each shared socket starts when none runs."""
        for unit in self.units:
            if unit["listen"]:
                directory = SYSTEMD / f"{unit['unit']}.socket.d"
                directory.mkdir(exist_ok=True)
                text = f"[Socket]\nService={self.service(unit, release)}\n"
                (directory / "release.conf").write_text(text)

    def open_sockets(self):
        """Open the shared sockets that are closed: at the first release, or after a crash loop."""
        for unit in self.units:
            shared = f"{unit['unit']}.socket"
            if unit["listen"] and show(shared, "ActiveState") != "active":
                old = [self.service(unit, self.previous)] if self.previous else []
                systemctl("stop", *old, self.service(unit))
                systemctl("reset-failed", shared, *old, check=False)
                systemctl("start", shared)

    def start(self, units):
        """Start units of the release and wait for them."""
        if units:
            services = [self.service(unit) for unit in units]
            systemctl("reset-failed", *services, check=False)
            systemctl("start", *services)
            for unit in units:
                self.wait(unit)

    def switch(self):
        """Start the release, probe it, and make it the one that stays."""
        new = Path("releases", self.release)
        if not (self.root / new / "manifest.json").exists():
            raise ActivationError(f"release {self.release} is not on this host")
        if self.previous in (None, self.release):
            self.name_sockets(self.release)
        if self.previous != self.release:
            self.rehearse()
        systemctl("daemon-reload")
        self.open_sockets()
        self.start(self.beside)
        if self.previous not in (None, self.release) and self.after:
            systemctl("stop", *self.services(self.after, self.previous))
        self.start(self.after)
        self.commit(self.release, self.previous)

    def commit(self, release, old):
        """Point everything at a release, and stop the other one gracefully."""
        self.name_sockets(release)
        link = self.root / ".current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{release}")
        link.replace(self.root / "current")
        systemctl("daemon-reload")
        sockets = [f"{unit['unit']}.socket" for unit in self.units if unit["listen"]]
        systemctl("enable", "--quiet", *sockets, *[self.service(u, release) for u in self.units])
        systemctl("start", f"{self.name}.target")
        if old not in (None, release):
            systemctl("disable", "--quiet", *[self.service(unit, old) for unit in self.units])
            systemctl("stop", *self.services(self.units, old))

    def undo(self):
        """Leave the host as it was before the switch."""
        if self.previous == self.release:
            return
        if self.previous is None:  # nothing was live: close the sockets, so that nothing hangs
            sockets = [f"{unit['unit']}.socket" for unit in self.units if unit["listen"]]
            systemctl("stop", *sockets, *self.services(self.units), check=False)
        else:
            systemctl("start", *[self.service(unit, self.previous) for unit in self.units])
            self.commit(self.previous, self.release)
        systemctl("reset-failed", *self.services(self.units), check=False)

    def restart(self):
        """Restart the live release in place, with the sockets whose units changed."""
        systemctl("daemon-reload")
        running = [unit for unit in self.units if not self.missing(unit)]
        for unit in running:
            shared, service = f"{unit['unit']}.socket", self.service(unit)
            if unit["listen"] and changed_since(shared, "ActiveEnterTimestampMonotonic", [shared]):
                systemctl("stop", *self.services([unit]))
                systemctl("restart", shared)
            systemctl("restart", service)
        for unit in running:
            self.wait(unit)
        if len(running) < len(self.units):  # a new process type, or one that gave up
            self.switch()

    def watch(self, seconds):
        """Fail when the release restarts or stops answering within some seconds."""
        began = {u["unit"]: show(self.service(u), "ExecMainStartTimestamp") for u in self.units}
        end = time.monotonic() + seconds
        while True:
            for unit in self.units:
                service = self.service(unit)
                if show(service, "ExecMainStartTimestamp") != began[unit["unit"]]:
                    raise ActivationError(f"{service} restarted while it was watched", service)
                self.wait(unit)
            if time.monotonic() >= end:
                return
            time.sleep(0.5)

    def history(self):
        """Read the order in which releases became live."""
        path = self.root / "history"
        return path.read_text().split() if path.exists() else []

    def describe(self):
        """Say what is live, what was before it, what is here, and what has to be restarted."""
        before = [release for release in self.history() if release != self.previous]
        files = [f"/etc/{self.name}/{name}" for name in ("environment", "secrets.env")]
        outdated = []
        for unit in self.units if self.previous else []:
            running, shared = self.service(unit, self.previous), f"{unit['unit']}.socket"
            if (
                self.missing(unit)
                or changed_since(running, "ExecMainStartTimestampMonotonic", [running], files)
                or (
                    unit["listen"]
                    and changed_since(shared, "ActiveEnterTimestampMonotonic", [shared])
                )
            ):
                outdated.append(unit["unit"])
        return {
            "changed": False,
            "live": self.previous,
            "previous": before[-1] if before else None,
            "releases": sorted(p.parent.name for p in self.root.glob("releases/*/manifest.json")),
            "outdated": outdated,
        }

    def remember(self, back):
        """Keep the order of releases; going back shortens it, so that `previous` never loops."""
        lines = self.history()
        if back and self.release in lines:
            lines = lines[: len(lines) - lines[::-1].index(self.release)]
        elif lines[-1:] != [self.release]:
            lines.append(self.release)
        text = "".join(f"{line}\n" for line in lines[-50:])
        (self.root / "history").write_text(text)

    def worth(self):
        """List the releases of the host, those that are needed first, and how many those are."""
        live, before = self.live(), self.history()[::-1]
        previous = next((release for release in before if release != live), self.previous)
        needed = [release for release in dict.fromkeys((live, previous)) if release]
        found = [p for p in self.root.glob("releases/*") if (p / "manifest.json").exists()]
        found.sort(key=lambda p: p.stat().st_ctime, reverse=True)
        names = [p.name for p in found]
        # What never was live, or was given up, is the first to go.
        order = dict.fromkeys([*needed, *before, *names])
        return [name for name in order if name in names], len(needed)

    def prune(self, keep):
        """Remove releases beyond those that a rollback may name, and what only they used."""
        order, needed = self.worth()
        kept, doomed = order[: max(keep, needed)], order[max(keep, needed) :]
        releases, envs, artifacts = (self.root / n for n in ("releases", "envs", "artifacts"))
        manifests = [json.loads((releases / name / "manifest.json").read_text()) for name in kept]
        used = {manifest["env"] for manifest in manifests}
        files = {name for manifest in manifests for name in manifest["files"]}
        files |= {f"{manifest['id']}.json" for manifest in manifests}
        for path in [releases / name for name in doomed]:
            shutil.rmtree(path)
        for path in envs.iterdir():
            if path.name not in used:
                shutil.rmtree(path)
        for path in artifacts.iterdir():
            if path.name not in files:
                path.unlink()
        return doomed


def changed_since(unit, timestamp, units, files=()):
    """Say whether unit files or other files are newer than what runs."""
    since = int(show(unit, timestamp) or 0) / 1e6
    if not since:
        return False
    started = time.time() - (time.monotonic() - since)
    fragments = [Path(show(name, "FragmentPath") or "/dev/null") for name in units]
    paths = [path for path in (*fragments, *map(Path, files)) if path.is_file()]
    return any(path.stat().st_mtime > started for path in paths)


def tidy(activation, keep, warn):
    """Prune; what goes wrong with that is no reason to fail, nor one to hide another."""
    try:
        return activation.prune(keep)
    except (OSError, ValueError, KeyError) as error:
        warn(f"old releases can't be removed: {type(error).__name__}: {error}")
        return []


def work(activation, params, warn):
    """Do what the task asks and give its result."""
    if params["state"] == "described":
        return activation.describe()
    if not activation.release:
        raise ActivationError("no release is live on this host: run site.yml")
    result = {"changed": True, "previous": activation.previous, "live": activation.release}
    if params["state"] == "watched":
        activation.watch(params["watch"])
        return {**result, "changed": False}
    if params["state"] == "restarted":
        activation.restart()
        return result
    if activation.is_live():
        # A host goes back to what it never left: what failed elsewhere is here, too.
        return {**result, "changed": bool(tidy(activation, params["keep"], warn))}
    try:
        activation.switch()
    except (ActivationError, OSError) as error:
        failed = getattr(error, "unit", None)
        error.said = journal(failed, 200) if failed else []
        activation.undo()
        tidy(activation, params["keep"], warn)
        raise
    activation.remember(params["back"])
    tidy(activation, params["keep"], warn)
    return result


def main():
    """Activate as the task asks."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "units": {"type": "list", "elements": "dict", "required": True},
            "release": {"type": "str"},
            "state": {
                "choices": ["active", "restarted", "watched", "described"],
                "default": "active",
            },
            "timeout": {"type": "int", "default": 60},
            "watch": {"type": "int", "default": 0},
            "keep": {"type": "int", "default": 5},
            "back": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    names = ("name", "root", "units", "release", "timeout")
    activation = Activation(*(params[name] for name in names))
    if module.check_mode and params["state"] != "described":
        changed = params["state"] == "restarted" or (
            params["state"] == "active" and activation.previous != params["release"]
        )
        module.exit_json(changed=changed, previous=activation.previous, live=activation.release)
    try:
        module.exit_json(**work(activation, params, module.warn))
    except (ActivationError, OSError) as error:
        failed = getattr(error, "unit", None)
        said = getattr(error, "said", None) or (journal(failed, 200) if failed else [])
        module.fail_json(
            msg=f"{error}{cause(said)}", journal=said[-20:], previous=activation.previous
        )


if __name__ == "__main__":
    main()
