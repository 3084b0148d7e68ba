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
outdated:
  description: Units that run older settings, and releases that run beside the live one.
  returned: when described
"""

import time

from ansible.module_utils import release_systemd as systemd
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.release_history import History
from ansible.module_utils.release_systemd import ActivationError, cause, changed_since
from ansible.module_utils.release_units import Units


class Activation(Units):
    """The steps on one host, with what is needed to undo them."""

    def __init__(self, name, root, units, release, timeout):
        self.history = History(root)
        self.previous = self.history.live()
        super().__init__(name, units, release or self.previous, timeout)

    def others(self, release):
        """Name the releases beside one: the other of this switch, and what runs or starts at boot.

        Two deploys that crossed leave such, and a host that died in the middle of its switch.
        """
        wants, found = systemd.SYSTEMD / f"{self.name}.target.wants", set()
        for unit in self.units:
            pattern = f"{unit['unit']}@*.service"
            options = ("--plain", "--no-legend", "--state=active,activating")
            listed = systemd.systemctl("list-units", *options, pattern)
            names = [line.split()[0] for line in listed.splitlines()]
            names += [path.name for path in wants.glob(pattern)]
            found |= {name.partition("@")[2].removesuffix(".service") for name in names}
        return sorted(({self.previous, self.release} | found) - {None, release})

    def is_live(self):
        """Say whether there is nothing to do."""
        alone = self.previous == self.release and not self.others(self.release)
        return alone and not any(map(self.missing, self.units))

    def switch(self):
        """Start the release, probe it, and make it the one that stays."""
        if self.release not in self.history.installed():
            raise ActivationError(f"release {self.release} is not on this host")
        if self.previous in (None, self.release):
            self.name_sockets(self.release)
        if self.previous != self.release:
            self.rehearse()
        systemd.systemctl("daemon-reload")
        self.open_sockets(self.previous)
        self.start(self.beside)
        for other in self.others(self.release) if self.after else []:
            systemd.systemctl("stop", *self.services(self.after, other))
        self.start(self.after)
        self.commit(self.release)

    def commit(self, release):
        """Point everything at a release, and stop every other one gracefully."""
        self.name_sockets(release)
        self.history.point(release)
        systemd.systemctl("daemon-reload")
        sockets = [f"{unit['unit']}.socket" for unit in self.units if unit["listen"]]
        systemd.systemctl(
            "enable", "--quiet", *sockets, *[self.service(u, release) for u in self.units]
        )
        systemd.systemctl("start", f"{self.name}.target")
        for other in self.others(release):
            systemd.systemctl(
                "disable", "--quiet", *[self.service(unit, other) for unit in self.units]
            )
            systemd.systemctl("stop", *self.services(self.units, other))

    def undo(self):
        """Leave the host as it was before the switch."""
        if self.previous == self.release:
            return
        if self.previous is None:  # nothing was live: close the sockets, so that nothing hangs
            sockets = [f"{unit['unit']}.socket" for unit in self.units if unit["listen"]]
            systemd.systemctl("stop", *sockets, *self.services(self.units), check=False)
        else:
            systemd.systemctl("start", *[self.service(unit, self.previous) for unit in self.units])
            self.commit(self.previous)
        systemd.systemctl("reset-failed", *self.services(self.units), check=False)

    def restart(self):
        """Restart the live release in place, with the sockets whose units changed."""
        systemd.systemctl("daemon-reload")
        running = [unit for unit in self.units if not self.missing(unit)]
        for unit in running:
            shared, service = f"{unit['unit']}.socket", self.service(unit)
            if unit["listen"] and changed_since(shared, "ActiveEnterTimestampMonotonic", [shared]):
                systemd.systemctl("stop", *self.services([unit]))
                systemd.systemctl("restart", shared)
            systemd.systemctl("restart", service)
        for unit in running:
            self.wait(unit)
        # A new process type, one that gave up, or another release beside this one.
        if len(running) < len(self.units) or self.others(self.release):
            self.switch()

    def watch(self, seconds):
        """Fail when the release restarts or stops answering within some seconds."""
        began = {
            u["unit"]: systemd.show(self.service(u), "ExecMainStartTimestamp") for u in self.units
        }
        end = time.monotonic() + seconds
        while True:
            for unit in self.units:
                service = self.service(unit)
                if systemd.show(service, "ExecMainStartTimestamp") != began[unit["unit"]]:
                    raise ActivationError(f"{service} restarted while it was watched", service)
                self.wait(unit)
            if time.monotonic() >= end:
                return
            time.sleep(0.5)

    def describe(self):
        """Say what is live, what was before it, what is here, and what has to be restarted."""
        files = [f"/etc/{self.name}/{name}" for name in ("environment", "secrets.env")]
        outdated = self.others(self.previous) if self.previous else []
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
            "previous": self.history.previous(self.previous),
            "releases": sorted(self.history.installed()),
            "outdated": outdated,
        }


def tidy(activation, keep, warn):
    """Prune; what goes wrong with that is no reason to fail, nor one to hide another."""
    try:
        return activation.history.prune(keep, activation.previous)
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
        error.said = systemd.journal(failed, 200) if failed else []
        activation.undo()
        tidy(activation, params["keep"], warn)
        raise
    activation.history.remember(activation.release, params["back"])
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
        said = getattr(error, "said", None) or (systemd.journal(failed, 200) if failed else [])
        module.fail_json(
            msg=f"{error}{cause(said)}", journal=said[-20:], previous=activation.previous
        )


if __name__ == "__main__":
    main()
