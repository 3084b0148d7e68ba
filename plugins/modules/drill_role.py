#!/usr/bin/python
"""Say which host plays a role at this moment; changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drill_role
short_description: Say which host plays a role at this moment
description:
  - Asks the software on this host, so that a drill breaks what leads now, and sees it when two do.
options:
  role:
    description:
      - postgresql_primary accepts writes; redis_primary says so itself, sentinel_primary is the one
        that Sentinel names; address_holder has the virtual IP; etcd_leader leads the quorum.
      - cron_leader is the host that the lease in the database names, asked for on a database host.
    type: str
    required: true
    choices:
      - postgresql_primary
      - redis_primary
      - sentinel_primary
      - address_holder
      - etcd_leader
      - cron_leader
  name: {description: Name of this host in the inventory., type: str, required: true}
  address: {description: Address that its tiers listen on., type: str, required: true}
  virtual_ip: {description: Address that the balancers hold between them., type: str, default: ""}
  database: {description: Database of the application., type: str, default: ""}
  redis_password: {description: Password of Redis and Sentinel., type: str, default: ""}
  redis_master: {description: Name that Sentinel knows., type: str, default: evenkeel}
author: Evenkeel
"""

EXAMPLES = r"""
- name: Ask who leads
  drill_role:
    role: postgresql_primary
    name: db1
    address: 10.0.0.41
"""

RETURN = r"""
holders: {description: Hosts that play it, as far as this one knows., returned: always, type: list}
"""

import json
import os
import subprocess
import urllib.request

from ansible.module_utils.basic import AnsibleModule

ROLES = [
    *("postgresql_primary", "redis_primary", "sentinel_primary"),
    *("address_holder", "etcd_leader", "cron_leader"),
]
TIMEOUT = 5  # seconds for any one question


def said(*argv, **environment):
    """Give what a command prints, or nothing when it fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd="/",
            env={**os.environ, **environment},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def sql(query, database="postgres"):
    """Give the one value that a query of the local PostgreSQL has."""
    psql = ("psql", "-X", "-At", "-d", database, "-c", query)
    return said("runuser", "-u", "postgres", "--", *psql)


class Role:
    """The roles; each method gives hosts."""

    def __init__(self, params):
        self.params = params

    def me_if(self, held):
        """Give this host when it holds the role."""
        return [self.params["name"]] if held else []

    def redis(self, port, *command):
        """Ask Redis or Sentinel."""
        ask = ("redis-cli", "--no-auth-warning", "-h", self.params["address"], "-p", port)
        return said(*ask, *command, REDISCLI_AUTH=self.params["redis_password"])

    def postgresql_primary(self):
        """Accepts writes, whatever Patroni says of it."""
        return self.me_if(sql("SELECT NOT pg_is_in_recovery()") == "t")

    def redis_primary(self):
        """Takes itself for the primary."""
        return self.me_if("role:master" in self.redis("6379", "INFO", "replication"))

    def sentinel_primary(self):
        """Is the one that Sentinel sends clients to."""
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.params["redis_master"])
        return self.me_if(self.params["address"] in self.redis("26379", *command).split())

    def address_holder(self):
        """Has the virtual IP."""
        held = f" {self.params['virtual_ip']}/" in said("ip", "-4", "-o", "address")
        return self.me_if(self.params["virtual_ip"] and held)

    def etcd_leader(self):
        """Leads the quorum."""
        url = f"http://{self.params['address']}:2379/v3/maintenance/status"
        request = urllib.request.Request(url, b"{}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                status = json.load(answer)
        except (OSError, ValueError):
            return []
        return self.me_if(status.get("leader") == status["header"]["member_id"])

    def cron_leader(self):
        """Is named in the lease of the reference application; asked of a primary."""
        query = "SELECT host FROM cron_lease WHERE until > now() AND NOT pg_is_in_recovery()"
        return sql(query, self.params["database"]).split()


def main():
    """Answer as the task asks."""
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str", "required": True, "choices": ROLES},
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "virtual_ip": {"type": "str", "default": ""},
            "database": {"type": "str", "default": ""},
            "redis_password": {"type": "str", "default": "", "no_log": True},
            "redis_master": {"type": "str", "default": "evenkeel"},
        },
        supports_check_mode=True,
    )
    holders = getattr(Role(module.params), module.params["role"])()
    module.exit_json(changed=False, holders=holders)


if __name__ == "__main__":
    main()
