#!/usr/bin/python
"""Build a release of an application on the controller: source and wheels, by content."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_build
short_description: Build a release of an application for the hosts' Python
description:
  - Runs on the controller. Leaves three files in the store, named by their content,
    I(<id>.json) (manifest), I(<id>.tar.gz) (source) and I(<env>.tar) (wheels and their hashes).
  - The same source, lock and target give the same id, and nothing is built again.
  - Index settings are those of pip on this machine.
options:
  name: {description: Name of the application., type: str, required: true}
  source: {description: Directory of the source tree., type: path}
  ref: {description: Git ref of the source; empty means the working tree., type: str, default: ""}
  package:
    description: Requirements from the package index, instead of a source tree.
    type: list
    elements: str
    default: []
  lock: {description: Lock file in the source., type: str, default: requirements.txt}
  python: {description: Python of the hosts., type: str, required: true}
  machine: {description: Machine type of the hosts., type: str, default: x86_64}
  store: {description: Directory of the releases on the controller., type: path, required: true}
author: Evenkeel
"""

EXAMPLES = r"""
- name: Build the release
  release_build:
    name: refapp
    source: refapp
    python: "3.13"
    store: .releases
  delegate_to: localhost
"""

RETURN = r"""
release: {description: Id of the release., returned: success, type: str}
env: {description: Hash of the lock that names the environment., returned: success, type: str}
files: {description: Files to ship with their sha256., returned: success, type: dict}
"""

import fcntl
import gzip
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.release_files import BuildError, sha256, tar, write
from ansible.module_utils.release_lock import Requirement, lock_package, read_lock
from ansible.module_utils.release_source import inside, read_ref, read_tree
from ansible.module_utils.release_wheels import build_wheels


def read_source(params):
    """Give the entries of the source and the text of its lock."""
    if params["package"]:
        store = Path(params["store"]) / params["name"]
        return [], lock_package(params["package"], params["python"], params["machine"], store)
    source = Path(params["source"] or "")
    if not params["source"] or not source.is_dir():
        raise BuildError(f"app_source: there is no directory {source}: set app_source")
    entries = list(read_ref(source, params["ref"]) if params["ref"] else read_tree(source))
    for name, _mode, data in entries:
        if isinstance(data, str) and not inside(name, data):
            raise BuildError(f"{name} is a link to {data}, outside the source: copy the file")
    locks = [data for name, _mode, data in entries if name == params["lock"]]
    if not locks:
        hint = "`uv pip compile --generate-hashes pyproject.toml -o requirements.txt`"
        raise BuildError(f"{source}/{params['lock']} is missing or not in git: make it with {hint}")
    return entries, locks[0].decode()


def build(params, check=False):
    """Build what is missing of a release and describe it."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", params["name"]):
        raise BuildError(f"app_name: `{params['name']}` must be lower case letters, digits and -")
    store = Path(params["store"]) / params["name"]
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two deploys on one controller build once
        return build_in(store, params, check)


def build_in(store, params, check):
    """Build in a store that is ours."""
    python, machine = params["python"], params["machine"]
    entries, text = read_source(params)
    lock = read_lock(text, python, machine, params["lock"])
    env = sha256("\n".join([python, machine, *lock]).encode())[:12]
    source = tar(entries)
    content = {"source": sha256(source), "env": env, "python": python, "name": params["name"]}
    release = sha256(json.dumps(content, sort_keys=True).encode())[:12]

    manifest, archive = store / f"{release}.json", store / f"{release}.tar.gz"
    wheels = store / f"{env}.tar"
    result = {"release": release, "env": env, "changed": False}
    try:
        known = json.loads(manifest.read_text())
        if all(sha256(store / name) == digest for name, digest in known["files"].items()):
            return {**result, "files": known["files"]}
    except (FileNotFoundError, ValueError, KeyError):
        pass  # not built, or half of it was lost: build it now

    result["changed"] = True
    if check:
        return {**result, "files": {}}
    if not wheels.exists():
        build_wheels(lock, python, machine, wheels)
    write(archive, gzip.compress(source, compresslevel=6, mtime=0))
    files = {path.name: sha256(path) for path in (archive, wheels)}
    described = {
        **content,
        "id": release,
        "machine": machine,
        "ref": params["ref"] or " ".join(params["package"]) or "working tree",
        "files": files,
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write(manifest, json.dumps(described, indent=2).encode())
    return {**result, "files": files}


def main():
    """Build as the task asks."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "source": {"type": "path"},
            "ref": {"type": "str", "default": ""},
            "package": {"type": "list", "elements": "str", "default": []},
            "lock": {"type": "str", "default": "requirements.txt"},
            "python": {"type": "str", "required": True},
            "machine": {"type": "str", "default": "x86_64"},
            "store": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    if Requirement is None:
        module.fail_json(msg=f"the package `packaging` is missing for {sys.executable}")
    try:
        module.exit_json(**build(module.params, module.check_mode))
    except BuildError as error:
        module.fail_json(msg=f"The release does not build: {error}")


if __name__ == "__main__":
    main()
