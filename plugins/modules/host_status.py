#!/usr/bin/python
"""Say how a host does in each of its tiers; changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_status
short_description: Say how a host does in each of its tiers
description:
  - Asks each tier's own health check on the host, and gives a row for each tier.
  - Notes on backups and copies stand beside "ok", a host is not unwell for them. No store is asked.
options:
  tiers:
    description: Groups of the host; those that are no tiers have no row.
    type: list
    elements: str
    required: true
  address: {description: Address that the tiers listen on., type: str, required: true}
  virtual_ip: {description: Address that the balancers hold between them., type: str, default: ""}
  app: {description: Name of the application., type: str, default: ""}
  root: {description: Directory of the applications., type: path, default: /srv}
  units: {description: Units of the process types., type: list, elements: dict, default: []}
  redis_password: {description: Password of Redis and Sentinel., type: str, default: ""}
  devices: {description: Devices of the object store., type: list, elements: str, default: []}
  redis_master: {description: Name that Sentinel knows., type: str, default: evenkeel}
author: Evenkeel
"""

EXAMPLES = r"""
- name: Ask the host
  host_status:
    tiers: [cache]
    address: 10.0.0.21
"""

RETURN = r"""
rows: {description: A row for each tier., returned: always, type: list}
"""

import http.client
import json
import os
import re
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

TIERS = ("lb", "cache", "app", "db", "redis", "storage")
TIMEOUT = 5  # seconds for any one question
PATIENT = 20  # for one that asks several itself
BACKUPS = Path("/usr/local/sbin/pgbackrest-scratch")  # roles/pgbackrest
COPIER = Path("/usr/local/sbin/rclone-copies")  # roles/rclone
COPIED = Path("/var/lib/rclone-copies/copied")
PATIENCE = 6 * 3600  # seconds that copies may take


def said(*argv, env=None, timeout=TIMEOUT):
    """Give what a command prints, or nothing when it fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def get(host, port, path):
    """Give status and body of a GET, or None and the reason."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return None, str(error)
    finally:
        connection.close()


def listens(address, port):
    """Say whether a port accepts connections."""
    try:
        with socket.create_connection((address, port), TIMEOUT):
            return True
    except OSError:
        return False


def active(unit):
    """Say whether a systemd unit is active."""
    return said("systemctl", "is-active", unit) == "active"


def processes(unit):
    """Count the processes of a systemd unit."""
    group = said("systemctl", "show", "--value", "--property=ControlGroup", unit)
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
        path = Path(f"{root}{group}/cgroup.procs")
        if group and path.exists():
            return len(path.read_text().split())
    return 0


def due(since, calendar):
    """Give the time at which a timer elapses first after another time."""
    base = f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    elapse = said("systemd-analyze", "calendar", f"--base-time={base}", calendar)
    found = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$", elapse, re.M)
    return datetime.fromisoformat(f"{found[1]}+00:00").timestamp() if found else None


def strays(member):
    """Say whether a replica does not stream: known since Patroni 3.0.4, Debian 12 has 3.0.2."""
    version = tuple(int(part) for part in member["patroni"]["version"].split(".")[:3])
    streams = member.get("replication_state") == "streaming"
    return member.get("role") == "replica" and not streams and version >= (3, 0, 4)


class Status:
    """The rows of one host: release, processes, and what is wrong, tier by tier."""

    def __init__(self, params):
        self.params, self.address = params, params["address"]

    def rows(self):
        """Give a row for each tier of the host; its other groups have none."""
        return [self.row(tier) for tier in self.params["tiers"] if tier in TIERS]

    def row(self, tier):
        """Give the row of a tier; nothing wrong means healthy."""
        release, running, notes, wrong = getattr(self, tier)()
        health = "; ".join(wrong) if wrong else ", ".join(["ok", *notes])
        return {
            "tier": tier, "release": release or "-", "processes": running or "-",
            "health": health, "healthy": not wrong,
        }  # fmt: skip

    def units(self, *names):
        """Count processes of units, and name those that don't run."""
        wrong = [f"{name} is not running" for name in names if not active(name)]
        return ", ".join(f"{name} {processes(f'{name}.service')}" for name in names), wrong

    def lb(self):
        """nginx answers, and keepalived runs where there is a virtual IP."""
        virtual_ip = self.params["virtual_ip"]
        running, wrong = self.units("nginx", *(["keepalived"] if virtual_ip else []))
        if not listens("127.0.0.1", 443):
            wrong.append("nothing listens on port 443")
        held = virtual_ip and f" {virtual_ip}/" in said("ip", "-o", "address")
        maintenance = Path("/etc/nginx/maintenance.on").exists()
        notes = ["holds the address"] * bool(held) + ["maintenance page on"] * maintenance
        return "", running, notes, wrong

    def cache(self):
        """nginx listens for the balancers."""
        running, wrong = self.units("nginx")
        if not listens(self.address, 6081):
            wrong.append("nothing listens on port 6081")
        return "", running, [], wrong

    def app(self):
        """Every process type of the live release runs and answers its probe, and no other one."""
        current = Path(self.params["root"], self.params["app"], "current")
        if not current.is_symlink():
            return "", "", [], ["no release is live: run site.yml"]
        release = Path(os.readlink(current)).name
        running, wrong = [], []
        for unit in self.params["units"]:
            service = f"{unit['unit']}@{release}.service"
            running.append(f"{unit['unit']} {processes(service)}")
            listed = said(
                "systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating",
                f"{unit['unit']}@*.service",
            )  # fmt: skip
            names = {line.split()[0] for line in listed.splitlines()}
            wrong += [f"{name} runs, too: run site.yml" for name in sorted(names - {service})]
            if not active(service):
                wrong.append(f"{service} is not running")
            elif unit.get("probe"):
                path = f"/run/{self.params['app']}/{unit['type']}-{release}.sock"
                code = said(
                    "curl", "-s", "-m", str(TIMEOUT), "-o", "/dev/null", "-w", "%{http_code}",
                    "-H", "X-Forwarded-Proto: https",
                    "--unix-socket", path, f"http://localhost{unit['probe']}",
                )  # fmt: skip
                if code != "200":
                    wrong.append(f"{unit['probe']} answers {code or 'nothing'}")
        # Its table stays when the drain has ended by itself, and names no port any more.
        if "elements" in said("nft", "list", "set", "inet", "evenkeel_drain", "ports"):
            wrong.append("drained: run restart.yml, or wait until the drain ends by itself")
        return release, ", ".join(running), [], wrong

    def db(self):
        """Patroni's member runs, and so does etcd's."""
        running, wrong = self.units("patroni", "etcd")
        status, body = get(self.address, 8008, "/patroni")
        if status is None:
            return "", running, [], [*wrong, "Patroni does not answer"]
        member = json.loads(body)
        if member.get("state") not in ("running", "streaming"):
            wrong.append(f"PostgreSQL is {member.get('state')}")
        elif strays(member):
            wrong.append("the replica does not follow the leader")
        status, body = get(self.address, 2379, "/health")
        if status != 200:
            wrong.append("etcd is not healthy")
        return "", running, [member.get("role", "no role"), *self.backups()], wrong

    @staticmethod
    def backups():
        """What the host knows to be wrong with backups: they don't make it unwell."""
        if not BACKUPS.exists():
            return []
        notes = said("runuser", "-u", "postgres", "--", str(BACKUPS), "notes", timeout=PATIENT)
        unknown = f"nothing is known of backups: runuser -u postgres -- {BACKUPS.name} notes"
        return json.loads(notes) if notes else [unknown]

    def redis(self):
        """Redis has a role and Sentinel knows a primary and a quorum."""
        running, wrong = self.units("redis-server", "redis-sentinel")
        env = {"REDISCLI_AUTH": self.params["redis_password"]}
        ask = ("redis-cli", "--no-auth-warning", "-h", self.address)
        info = said(*ask, "-p", "6379", "INFO", "replication", env=env)
        role = next((s[5:].strip() for s in info.splitlines() if s.startswith("role:")), "")
        if not role:
            wrong.append("Redis does not answer")
        if role == "slave":
            role = "replica"
            if "master_link_status:up" not in info:
                wrong.append("the replica is not in step")
        quorum = said(
            *ask, "-p", "26379", "SENTINEL", "CKQUORUM", self.params["redis_master"], env=env
        )
        if not quorum.startswith("OK"):
            wrong.append("Sentinel has no quorum")
        return "", running, [role, *self.copies()], wrong

    def storage(self):
        """Swift's proxy answers through nginx, and its servers listen."""
        running, wrong = self.units("nginx", "swift-proxy", "swift-object")
        status, _ = get(self.address, 8080, "/healthcheck")
        if status != 200:
            wrong.append("the object store does not answer")
        for device in self.params["devices"]:
            # Without its disk a server runs on, and what nobody has is 507 there in place of 404.
            if get(self.address, 6200, f"/{device}/0/evenkeel/status/none")[0] == 507:
                wrong.append(f"device {device} is not there: look at its disk")
        wrong += [
            f"nothing listens on port {port}"
            for port in (6200, 6201, 6202)
            if not listens(self.address, port)
        ]
        return "", running, self.copies(), wrong

    @staticmethod
    def copies():
        """What the host knows to be wrong with its copies: they don't make it unwell."""
        unit = "rclone-copies"
        if not COPIER.exists():
            return []
        shown = said("systemctl", "show", "--property=ActiveState,SubState", f"{unit}.service")
        if "=failed" in shown or "auto-restart" in shown:
            return [f"{unit} failed: journalctl -u {unit}"]
        if not COPIED.exists():
            return [
                f"nothing copied yet: {unit}.timer does so every day, `systemctl start {unit}` now"
            ]
        last = COPIED.stat().st_mtime
        timer = said("systemctl", "show", "--property=TimersCalendar", f"{unit}.timer")
        calendar = re.search(r"OnCalendar=([^;]+) ;", timer)
        late = due(last, calendar[1]) if calendar else None
        if late and time.time() - late > PATIENCE:
            day = f"{datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M} UTC"
            return [f"nothing copied since {day}: journalctl -u {unit}"]
        return []


def main():
    """Answer as the task asks."""
    module = AnsibleModule(
        argument_spec={
            "tiers": {"type": "list", "elements": "str", "required": True},
            "address": {"type": "str", "required": True},
            "virtual_ip": {"type": "str", "default": ""},
            "app": {"type": "str", "default": ""},
            "root": {"type": "path", "default": "/srv"},
            "units": {"type": "list", "elements": "dict", "default": []},
            "devices": {"type": "list", "elements": "str", "default": []},
            "redis_password": {"type": "str", "default": "", "no_log": True},
            "redis_master": {"type": "str", "default": "evenkeel"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, rows=Status(module.params).rows())


if __name__ == "__main__":
    main()
