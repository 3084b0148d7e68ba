"""A release's units on a host: one instance for each process type, on sockets that they share."""

from __future__ import annotations

import time

from ansible.module_utils import release_probe
from ansible.module_utils import release_systemd as systemd

SETTLE = 2  # seconds that a process without a probe must stay up


class Units:
    """The units of one release, and the private form that it is rehearsed in."""

    def __init__(self, name, units, release, timeout):
        self.name, self.release, self.timeout = name, release, timeout
        self.beside = [unit for unit in units if unit["handover"] == "socket"]
        self.after = [unit for unit in units if unit["handover"] != "socket"]
        self.units = self.beside + self.after

    def service(self, unit, release=None):
        """Name of the instance of a unit."""
        return f"{unit['unit']}@{release or self.release}.service"

    def services(self, units, release=None):
        """Names of the instances, and of their private sockets, which go down with them."""
        release = release or self.release
        probes = [f"{unit['unit']}-probe@{release}.socket" for unit in units if unit["probe"]]
        return [self.service(unit, release) for unit in units] + probes

    def missing(self, unit):
        """Say whether a unit doesn't run, or would not after a boot: its type may be new."""
        service = self.service(unit)
        return (
            systemd.show(service, "ActiveState") != "active"
            or systemd.systemctl("is-enabled", service, check=False) != "enabled"
        )

    def wait(self, unit):
        """Wait until a unit answers its probe; one without a probe must stay up."""
        service, said = self.service(unit), "nothing"
        started, run = time.monotonic(), systemd.show(service, "InvocationID")
        while time.monotonic() - started < self.timeout:
            state = systemd.show(service, "ActiveState")
            # A question on its socket starts a service again that died: it is another run then.
            if state in ("failed", "inactive") or systemd.show(service, "InvocationID") != run:
                raise systemd.ActivationError(f"{service} stopped as it started", service)
            if unit["probe"]:
                path = f"/run/{self.name}/{unit['type']}-{self.release}.sock"
                said = release_probe.ask(path, unit["probe"])
                if said is None:
                    return
            # Not while it waits for its next start, which comes later the oftener it died.
            elif state == "active" and time.monotonic() - started > SETTLE:
                return
            time.sleep(0.2)
        waited = f"within {self.timeout} s; it said {said}"
        raise systemd.ActivationError(
            f"{service} did not answer {unit['probe']} with 200 {waited}", service
        )

    def rehearse(self):
        """Run the release on its private sockets alone: one that isn't ready takes no request."""
        probed = [unit for unit in self.units if unit["probe"]]
        for unit in probed:
            text = (systemd.SYSTEMD / f"{unit['unit']}@.service").read_text()
            text = text.replace(f"Sockets={unit['unit']}.socket ", "Sockets=")
            # Not restarted: its crash loop would be the shared socket's, too.
            text = text.replace("Restart=always", "Restart=no")
            (systemd.RUNTIME / self.service(unit)).write_text(text)
        systemd.systemctl("daemon-reload")
        try:
            self.start(probed)
            systemd.systemctl("stop", *[self.service(unit) for unit in probed])
        finally:
            self.end_rehearsal()

    def end_rehearsal(self):
        """Take the private form of the units away, also what an interrupted run left."""
        for unit in self.units:
            (systemd.RUNTIME / self.service(unit)).unlink(missing_ok=True)
        systemd.systemctl("daemon-reload")

    def name_sockets(self, release):
        """Name the instance that each shared socket starts when none runs."""
        for unit in self.units:
            if unit["listen"]:
                directory = systemd.SYSTEMD / f"{unit['unit']}.socket.d"
                directory.mkdir(exist_ok=True)
                text = f"[Socket]\nService={self.service(unit, release)}\n"
                (directory / "release.conf").write_text(text)

    def open_sockets(self, previous):
        """Open the shared sockets that are closed: at the first release, or after a crash loop."""
        for unit in self.units:
            shared = f"{unit['unit']}.socket"
            if unit["listen"] and systemd.show(shared, "ActiveState") != "active":
                old = [self.service(unit, previous)] if previous else []
                systemd.systemctl("stop", *old, self.service(unit))
                systemd.systemctl("reset-failed", shared, *old, check=False)
                systemd.systemctl("start", shared)

    def start(self, units):
        """Start units of the release and wait for them."""
        if units:
            services = [self.service(unit) for unit in units]
            systemd.systemctl("reset-failed", *services, check=False)
            systemd.systemctl("start", *services)
            for unit in units:
                self.wait(unit)
