"""Entry points of roles, run on all hosts of a scenario as the verbs run them."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def call(scenario, entry, *arguments, hosts="all"):
    """Run tasks_from `entry` of the scenario's role; return how that ended."""
    role = scenario.partition("-")[0]
    task = ["-m", "include_role", "-a", f"name={role} tasks_from={entry}"]
    return run(["ansible", hosts, *task, *arguments], scenario)


def converge(scenario, variables, hosts="all", tasks=()):
    """Apply the scenario's role with facts, as site.yml does, then `tasks`; return the end."""
    role = scenario.partition("-")[0]
    play = {"hosts": hosts, "gather_facts": True, "roles": [role], "tasks": list(tasks)}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump([play], file)
        file.flush()
        return run(["ansible-playbook", file.name, "-e", json.dumps(variables)], scenario)


def run(command, scenario):
    """Run a command of Ansible on the scenario's hosts."""
    return subprocess.run(
        [*command, "-i", ROOT / "molecule" / scenario / "inventory.yml",
         "--ssh-common-args", f"-F {ROOT / '.lab/ssh_config'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip
