#!/usr/bin/python
"""Say how requests to servers went lately, by the logs of the nginx that passed them on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_traffic
short_description: Say how requests to servers went, by nginx's logs
description:
  - Reads what the logs of this host have of the last I(seconds), by its own clock, and counts each
    try of a request for the server that it was made on.
  - A log that is not there has nothing to say. WebSockets are left out, they end when they end.
options:
  ports: {description: Ports of the servers to count., type: list, elements: int, required: true}
  seconds: {description: How far to look back., type: int, default: 60}
  logs:
    description: Logs in the format of the nginx role; that before a rotation is found by itself.
    type: list
    elements: path
    default: [/var/log/nginx/access.log, /var/log/nginx/cache.log]
author: Evenkeel
"""

EXAMPLES = r"""
- name: Read how requests went
  release_traffic:
    ports: [8000]
    seconds: 10
"""

RETURN = r"""
traffic:
  description: By address, how many requests, how many with which error, and the 99th percentile of
    the seconds that the server took.
  returned: success
  type: dict
  sample: {10.0.0.31: {requests: 120, errors: {"500": 57}, p99: 0.214}}
"""

import functools
import json
import os
import re
import time
from collections import Counter, defaultdict
from datetime import datetime
from itertools import islice
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

BLOCK = 1 << 16
MOST = 200_000  # lines of a log that are read; a second of work
LATE = 2  # seconds that a line may stand behind newer ones: each worker of nginx writes its own


def backwards(file):
    """Give the lines of a file, the last one first."""
    position, rest = file.seek(0, os.SEEK_END), b""
    while position:
        size = min(BLOCK, position)
        position -= size
        file.seek(position)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
    yield rest


@functools.lru_cache
def moment(text):
    """Give the seconds of a time as nginx writes it."""
    return datetime.fromisoformat(text).timestamp()


def entries(log, since):
    """Give what a log has since a moment; it may have been rotated meanwhile."""
    for path in (Path(log), Path(f"{log}.1")):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            for line in islice(backwards(file), MOST):
                try:
                    entry = json.loads(line.decode(errors="replace"))
                    at = moment(entry["time"])
                except (ValueError, KeyError, TypeError):
                    continue  # an empty line, or none of ours
                if at < since - LATE:
                    return
                if at >= since:
                    yield entry


def tries(entry):
    """Give server, status and seconds of each try: `a, b`, or `a : b` in another group."""
    names = ("upstream", "upstream_status", "upstream_duration")
    return zip(*(re.split(", | : ", entry.get(name, "")) for name in names), strict=False)


def percentile(values, share=0.99):
    """Give the value that so many are not above."""
    return sorted(values)[int(len(values) * share)] if values else 0


def count(logs, ports, since):
    """Count the tries on each address."""
    requests, errors, took = Counter(), defaultdict(Counter), defaultdict(list)
    for log in logs:
        for entry in entries(log, since):
            for server, status, seconds in tries(entry):
                address, _, port = server.rpartition(":")
                if port not in ports or not status.isdigit() or status == "101":
                    continue
                address = address.strip("[]")
                requests[address] += 1
                if status >= "500":
                    errors[address][status] += 1
                if seconds != "-":
                    took[address].append(float(seconds))
    return {
        address: {
            "requests": requests[address],
            "errors": dict(errors[address]),
            "p99": percentile(took[address]),
        }
        for address in sorted(requests)
    }


def main():
    """Count as the task asks."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "required": True},
            "seconds": {"type": "int", "default": 60},
            "logs": {
                "type": "list",
                "elements": "path",
                "default": ["/var/log/nginx/access.log", "/var/log/nginx/cache.log"],
            },
        },
        supports_check_mode=True,
    )
    params = module.params
    ports = {str(port) for port in params["ports"]}
    try:
        traffic = count(params["logs"], ports, time.time() - params["seconds"])
    except OSError as error:
        module.fail_json(msg=f"The log can't be read: {error}")
    module.exit_json(changed=False, traffic=traffic)


if __name__ == "__main__":
    main()
