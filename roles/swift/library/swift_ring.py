#!/usr/bin/python
"""Build Swift's rings from a list of members, and hand them from member to member."""

import base64
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

# Between two moves of one partition, replication must be able to finish.
MIN_PART_HOURS = 1
# What Swift's own tool calls unbalanced, in percent.
BALANCE = 5
# A round moves one copy of a partition at most.
ROUNDS = 5


def load(path):
    """Return the builder in a file, None where there is none."""
    from swift.common.ring import RingBuilder

    return RingBuilder.load(path) if os.path.exists(path) else None


def rendered(save):
    """Return the bytes that a save function of Swift writes to a file."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "file")
        save(path)
        with open(path, "rb") as file:
            return file.read()


def converge(builder, params, port):
    """Bring a builder to the described members; return whether it changed.

    A member that leaves stays with a weight of 0 until it is described no more: replicators give
    away only what is on a device of the rings.
    """
    have = {(dev["ip"], dev["device"]): dev for dev in builder.devs if dev}
    stay = {(ip, device): 100.0 for ip in params["members"] for device in params["devices"]}
    leave = {key: 0.0 for key in have if key[0] in params["leaving"]}
    want = stay | leave

    losing = {ip for (ip, device), dev in have.items() if dev["parts"] and (ip, device) not in stay}
    losing -= set(params["members"])
    if losing and len(losing) >= builder.replicas:
        raise RuntimeError(
            f"removing {', '.join(sorted(losing))} at once could remove every copy of an object: "
            "keep one of them in the tier, wait until replication is done, then remove it"
        )
    zones = {ip: dev["zone"] for (ip, _), dev in have.items()}
    for (ip, device), weight in want.items():
        if (ip, device) not in have:
            zone = zones.setdefault(ip, max(zones.values(), default=0) + 1)
            builder.add_dev(
                {
                    "region": 1, "zone": zone, "ip": ip, "port": port, "device": device,
                    "weight": weight,
                }
            )  # fmt: skip
        elif have[ip, device]["weight"] != weight:
            builder.set_dev_weight(have[ip, device]["id"], weight)
    for key in have.keys() - want.keys():
        builder.remove_dev(have[key]["id"])
    if builder.replicas != params["replicas"]:
        builder.set_replicas(params["replicas"])
    return rebalanced(builder, [have[key] for key in leave])


def rebalanced(builder, leaving):
    """Assign partitions until those that leave have none; return whether the rings changed."""
    described = builder.devs_changed
    if not described and builder.get_balance() <= BALANCE:
        return False
    changed = bool(described)
    for _ in range(ROUNDS):
        if any(dev["parts"] for dev in leaving):
            # The rest moves one copy of a partition an hour at most; who leaves gives all at once.
            builder.pretend_min_part_hours_passed()
        # A fixed seed: the same history gives the same bytes.
        moved, _, _ = builder.rebalance(seed="evenkeel")
        changed = changed or bool(moved)
        if not any(dev["parts"] for dev in leaving):
            break
    builder.validate()
    return changed


def build(module):
    """Return whether a builder changed, and builders and rings by file name."""
    try:
        from swift.common.ring import RingBuilder
    except ImportError:
        if module.check_mode:  # a fresh host: the package would have come first
            return True, {}
        raise RuntimeError("python3-swift is missing: run the install step first") from None

    params, changed, files = module.params, False, {}
    for name, port in params["ports"].items():
        path = os.path.join(params["path"], f"{name}.builder")
        builder = load(path) or RingBuilder(
            params["part_power"], params["replicas"], MIN_PART_HOURS
        )
        if converge(builder, params, port):
            changed = True
            content = rendered(builder.save)
            write(module, path, content)
        else:
            with open(path, "rb") as file:
                content = file.read()
        files[f"{name}.builder"] = content
        files[f"{name}.ring.gz"] = rendered(builder.get_ring().save)
    return changed, {name: base64.b64encode(data).decode() for name, data in files.items()}


def write(module, path, content):
    """Write a file for root and the swift group; return whether it differed."""
    changed = True
    if os.path.exists(path):
        with open(path, "rb") as file:
            changed = file.read() != content
    if changed and not module.check_mode:
        handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o640)
        module.atomic_move(temporary, path)
    changed = module.set_group_if_different(path, "swift", changed)
    return module.set_mode_if_different(path, "0640", changed)


def install(module):
    """Write builders and rings; leave rings in use alone unless told to replace them."""
    changed = not module.params["files"]
    for name, content in sorted(module.params["files"].items()):
        path = os.path.join(module.params["path"], name)
        if name.endswith(".ring.gz") and os.path.exists(path) and not module.params["replace"]:
            continue
        changed |= write(module, path, base64.b64decode(content))
    return changed


def version(module):
    """Return the version of the builder that changes with every member."""
    path = os.path.join(module.params["path"], "object.builder")
    builder = load(path) if os.path.exists(path) else None
    return builder.version if builder else 0


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["read", "built", "installed"], "required": True},
            "path": {"type": "path", "default": "/etc/swift"},
            "members": {"type": "list", "elements": "str", "default": []},
            "leaving": {"type": "list", "elements": "str", "default": []},
            "devices": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "dict", "default": {}},
            "replicas": {"type": "int", "default": 1},
            "part_power": {"type": "int", "default": 8},
            "files": {"type": "dict", "default": {}},
            "replace": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "read":
            module.exit_json(changed=False, version=version(module))
        if module.params["state"] == "built":
            changed, files = build(module)
            module.exit_json(changed=changed, files=files)
        module.exit_json(changed=install(module))
    except RuntimeError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

DOCUMENTATION = r"""
module: swift_ring
short_description: Build or install the rings of an object store
description:
  - C(read) returns the version of the builder files that the host has, 0 for none.
  - >-
    C(built) brings the host's builder files to the described members, keeping every
    partition where it is unless the change needs a move, and returns builders and rings.
  - C(installed) writes what C(built) returned.
author: [Evenkeel]
options:
  state: {description: What to do., choices: [read, built, installed], type: str, required: true}
  path: {description: Directory of the rings., type: path, default: /etc/swift}
  members: {description: Addresses (one zone each)., type: list, elements: str, default: []}
  leaving: {description: Addresses that shall be empty., type: list, elements: str, default: []}
  devices: {description: Names of each member's devices., type: list, elements: str, default: []}
  ports: {description: Port of each ring's server., type: dict, default: {}}
  replicas: {description: Copies of each object., type: int, default: 1}
  part_power: {description: Partitions as a power of two., type: int, default: 8}
  files: {description: Contents by name in base64., type: dict, default: {}}
  replace: {description: Whether rings in use are replaced., type: bool, default: false}
"""
