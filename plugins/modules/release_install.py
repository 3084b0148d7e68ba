#!/usr/bin/python
"""Install a shipped release on a host: its environment, offline, and its source."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_install
short_description: Install a shipped release beside the others of a host
description:
  - Verifies what was shipped, makes the environment that the lock names where it is new, and
    unpacks the release. Nothing that runs is touched, and no package index is asked.
options:
  root: {description: Directory of the application on the host., type: path, required: true}
  release: {description: Id of the release under artifacts/., type: str, required: true}
  python: {description: Python that the release was built for., type: str, required: true}
author: Evenkeel
"""

EXAMPLES = r"""
- name: Install the release
  release_install:
    root: /srv/refapp
    release: 0123456789ab
    python: "3.13"
"""

RETURN = r"""
env: {description: Hash that names the environment., returned: success, type: str}
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PIP = "/usr/share/python-wheels"  # Debian's python3-pip-whl: environments need no pip of their own
TIMEOUT = 600


class InstallError(Exception):
    """The release can't be installed; the message is one line."""


def run(*argv, **options):
    """Run a command, or fail with its last line."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=TIMEOUT, check=False, **options
    )
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        wrong = [line for line in told if line.startswith(("ERROR", "***"))] or told[-1:]
        raise InstallError(f"{' '.join(argv[:4])}: {' '.join(wrong[-2:])}")


def verify(artifacts, release):
    """Read the manifest and hold every shipped file against it."""
    try:
        manifest = json.loads((artifacts / f"{release}.json").read_text())
    except FileNotFoundError as error:
        raise InstallError(f"release {release} was not shipped to this host") from error
    for name, wanted in manifest["files"].items():
        path = artifacts / name
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            path.unlink()  # the next run ships it again
            raise InstallError(f"{name} was damaged on the way: deploy again")
    return manifest


def unpack(archive, directory):
    """Unpack an archive that was made by release_build, and trust it no further than that."""
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")


def make_environment(root, manifest):
    """Build the environment at its final path; only `.complete` makes it count."""
    env = root / "envs" / manifest["env"]
    if (env / ".complete").exists():
        return False
    shutil.rmtree(env, ignore_errors=True)
    wheels = root / "envs" / f".wheels-{manifest['env']}"
    shutil.rmtree(wheels, ignore_errors=True)
    try:
        unpack(root / "artifacts" / f"{manifest['env']}.tar", wheels)
        run(sys.executable, "-m", "venv", "--without-pip", str(env))
        pip = sorted(Path(PIP).glob("pip-*.whl"))
        if not pip:
            raise InstallError("python3-pip-whl is not installed: run site.yml first")
        quiet = ("--quiet", "--disable-pip-version-check", "--root-user-action=ignore")
        offline = ("--no-index", f"--find-links={wheels}", "--no-deps", "--require-hashes")
        run(
            str(env / "bin" / "python"), f"{pip[-1]}/pip", "install", *quiet, *offline,
            "--no-cache-dir", "--compile", "-r", str(wheels / "requirements.txt"),
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PIP_CONFIG_FILE": os.devnull},
        )  # fmt: skip
        (env / ".complete").touch()
    finally:
        shutil.rmtree(wheels, ignore_errors=True)
    return True


def unpack_release(root, manifest):
    """Put the source under its id, compiled, in one rename."""
    final = root / "releases" / manifest["id"]
    if final.exists():
        return False
    work = root / "releases" / f".{manifest['id']}"
    shutil.rmtree(work, ignore_errors=True)
    source = work / "src"
    source.mkdir(parents=True)
    unpack(root / "artifacts" / f"{manifest['id']}.tar.gz", source)
    # Unreadable source fails here, before a host runs it. The path in tracebacks is the final one.
    paths = ("-s", str(source), "-p", str(final / "src"))
    run(sys.executable, "-m", "compileall", "-q", *paths, str(source))
    (work / "env").symlink_to(f"../../envs/{manifest['env']}")
    shutil.copy(root / "artifacts" / f"{manifest['id']}.json", work / "manifest.json")
    work.rename(final)
    return True


def install(root, release, python, check=False):
    """Install the release where it is missing."""
    running = ".".join(str(number) for number in sys.version_info[:2])
    if running != python:
        raise InstallError(f"the host's Python is {running}: set app_python to it and build again")
    manifest = verify(root / "artifacts", release)
    if check:
        changed = not (root / "releases" / release).exists()
        return {"changed": changed, "env": manifest["env"]}
    os.umask(0o022)  # readable by the app's user, writable by root alone
    changed = make_environment(root, manifest)
    changed = unpack_release(root, manifest) or changed
    return {"changed": changed, "env": manifest["env"]}


def main():
    """Install as the task asks."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "python": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    root, release = Path(module.params["root"]), module.params["release"]
    try:
        module.exit_json(**install(root, release, module.params["python"], module.check_mode))
    except (InstallError, OSError, tarfile.TarError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"Release {release} does not install: {error}")


if __name__ == "__main__":
    main()
