"""Entry points of roles, run on all hosts of a scenario as the verbs run them."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def call(scenario, entry, *arguments, hosts="all"):
    """Run tasks_from `entry` of the scenario's role; return how that ended."""
    role = scenario.partition("-")[0]
    return subprocess.run(
        ["ansible", hosts, "-i", ROOT / "molecule" / scenario / "inventory.yml",
         "-m", "include_role", "-a", f"name={role} tasks_from={entry}",
         "--ssh-common-args", f"-F {ROOT / '.lab/ssh_config'}", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip
