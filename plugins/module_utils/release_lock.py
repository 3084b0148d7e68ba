"""The lock of a release: which packages, pinned and hashed, for the hosts' Python."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ansible.module_utils.release_files import BuildError, run, sha256, write

try:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
except ImportError:  # ansible-core depends on it; only a foreign interpreter lacks it
    Requirement = None


def target_markers(python, machine):
    """Describe the hosts' Python to markers, which pip reads for the running one."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def read_lock(text, python, machine, name="the lock"):
    """Read a lock into sorted lines for the target: name==version and its hashes."""
    remake = f"make {name} with `uv pip compile --generate-hashes`"
    wanted = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line or re.match(r"--?(i|f|index-url|extra-index-url|find-links)\b", line):
            continue
        spec, *hashes = re.split(r"\s+--hash=", line)
        try:
            requirement = Requirement(spec)
        except InvalidRequirement as error:
            raise BuildError(f"{name}: `{spec}` is not a pinned package: {remake}") from error
        marker = requirement.marker
        if marker and not marker.evaluate(target_markers(python, machine)):
            continue
        pins = list(requirement.specifier)
        if len(pins) != 1 or pins[0].operator != "==" or not hashes:
            raise BuildError(f"{name}: {requirement.name} has no version or no hash: {remake}")
        hashed = " ".join(f"--hash={h.strip()}" for h in sorted(hashes))
        wanted.append(f"{canonicalize_name(requirement.name)}=={pins[0].version} {hashed}")
    if not wanted:
        raise BuildError(f"{name} names no package: {remake}")
    return sorted(wanted)


def index_settings():
    """Give uv the package index that pip is configured with: uv doesn't read pip's files."""
    env = dict(os.environ)
    if any(key in env for key in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")):
        return env
    for line in run(sys.executable, "-m", "pip", "config", "list").decode().splitlines():
        key, _, value = line.partition("=")
        if key.endswith(".index-url"):
            env["UV_DEFAULT_INDEX"] = value.strip("'\"")
        elif key.endswith(".cert"):
            env.setdefault("SSL_CERT_FILE", value.strip("'\""))
    return env


def lock_package(package, python, machine, store):
    """Resolve requirements once; the lock stays in the store until it is deleted."""
    wanted = "".join(f"{line}\n" for line in package)
    lock = store / f"lock-{sha256(f'{wanted}{python}{machine}'.encode())[:12]}.txt"
    if not lock.exists():
        argv = ("uv", "pip", "compile", "-", "--quiet", "--generate-hashes", "--no-annotate")
        platform = ("--python-version", python, "--python-platform", f"{machine}-manylinux_2_34")
        env = index_settings()
        env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"
        text = run(*argv, *platform, stdin=wanted.encode(), env=env, what=" ".join(package))
        write(lock, text)
    return lock.read_text()
