#!/usr/bin/python
"""Break one thing on this host, or mend it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drill_fault
short_description: Break one thing on this host, or mend it
description:
  - Before it breaks anything that does not mend by itself, it sets a timer of systemd that will,
    so that a host is whole again even when nobody is left to mend it.
  - What stops or starts units does not wait for it, since a member of a quorum may need the others
    for either. Mend all hosts first, then ask each for whole, which takes the timer away.
options:
  state:
    description: What to do; whole waits until what was mended is.
    type: str
    choices: [broken, mended, whole]
    required: true
  how:
    description:
      - signal goes to processes of a unit or of a PID file; service stops units; cut drops packets
        of everybody but the operators' SSH; full leaves no room on a file system; empty removes
        what directories hold while units are stopped.
    type: str
    choices: [signal, service, cut, full, empty]
    required: true
  signal: {description: Name of the signal., type: str, default: KILL}
  units:
    description: Units; those of signal may be patterns.
    type: list
    elements: str
    default: []
  whom:
    description: Which processes of a unit get the signal.
    type: str
    choices: [main, worker, all]
    default: main
  pid_file: {description: File whose first line is the process., type: path}
  ways:
    description: Which packets are dropped.
    type: str
    choices: [both, in, out]
    default: both
  operators:
    description: Networks whose SSH is spared.
    type: list
    elements: str
    default: []
  address: {description: The only address of this host that it may still announce., type: str}
  paths: {description: Directories of full and empty., type: list, elements: path, default: []}
  most: {description: Room that full may take at most., type: str, default: 100G}
  within: {description: Seconds after which the host mends itself., type: int, default: 300}
  patience: {description: Seconds that whole waits at most., type: int, default: 120}
author: Evenkeel
"""

EXAMPLES = r"""
- name: Cut the host off
  drill_fault:
    state: broken
    how: cut
    operators: [10.0.0.0/24]
    address: 10.0.0.41
"""

RETURN = r"""
at: {description: Clock time right before it broke., returned: always, type: float}
done: {description: What was done to what., returned: always, type: str}
"""

import contextlib
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.drill_faults import Fault, FaultError


def main():
    """Break or mend as the task asks."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["broken", "mended", "whole"], "required": True},
            "how": {"type": "str", "required": True,
                    "choices": ["signal", "service", "cut", "full", "empty"]},
            "signal": {"type": "str", "default": "KILL"},
            "units": {"type": "list", "elements": "str", "default": []},
            "whom": {"type": "str", "choices": ["main", "worker", "all"], "default": "main"},
            "pid_file": {"type": "path"},
            "ways": {"type": "str", "choices": ["both", "in", "out"], "default": "both"},
            "operators": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str"},
            "paths": {"type": "list", "elements": "path", "default": []},
            "most": {"type": "str", "default": "100G"},
            "within": {"type": "int", "default": 300},
            "patience": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )  # fmt: skip
    fault = Fault(module.params)
    if module.check_mode:
        module.exit_json(changed=True, at=time.time(), done="")
    if module.params["state"] != "broken":
        mended, at = module.params["state"] == "mended", time.time()
        try:
            fault.mend() if mended else fault.whole(module.params["patience"])
        except (FaultError, OSError) as error:
            module.fail_json(msg=f"not mended: {error}", at=at)
        module.exit_json(changed=mended, at=at, done=fault.undo())
    try:
        steps = fault.prepare()
        fault.arm()
        at = time.time()
        for _, step in steps:
            step()
    except (FaultError, OSError, ValueError) as error:
        with contextlib.suppress(FaultError, OSError):  # the playbook mends it again, and says so
            fault.mend()
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, at=at, done=", ".join(what for what, _ in steps))


if __name__ == "__main__":
    main()
