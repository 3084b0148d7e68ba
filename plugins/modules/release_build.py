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
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from ansible.module_utils.basic import AnsibleModule

try:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
except ImportError:  # ansible-core depends on it; only a foreign interpreter lacks it
    Requirement = None

SKIPPED = {
    ".git", ".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__", ".pytest_cache",
    ".ruff_cache", ".mypy_cache", ".env", ".releases",
}  # fmt: skip
TIMEOUT = 900  # seconds for one run of pip, uv or git


class BuildError(Exception):
    """The release can't be built; the message is one line that says what to do."""


def run(*argv, cwd=None, env=None, stdin=None, what=""):
    """Run a command and give its output, or fail with the line that says why."""
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, input=stdin, capture_output=True, timeout=TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise BuildError(f"{argv[0]} is not installed on the controller") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{what or argv[0]} took more than {TIMEOUT} s") from error
    if done.returncode:
        lines = [s.strip() for s in done.stderr.decode(errors="replace").splitlines() if s.strip()]
        told = [line for line in lines if re.match(r"(ERROR|error|fatal)", line)] or lines[-1:]
        raise BuildError(f"{what or ' '.join(argv[:3])}: {' '.join(told[-2:])}")
    return done.stdout


def sha256(data):
    """Hash bytes, or the bytes of a file."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


def write(path, data):
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def tar(entries):
    """Make the tar of (name, mode, bytes or link target); equal entries give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode, data in sorted(entries, key=lambda entry: entry[0]):
            info = tarfile.TarInfo(name)
            info.mode = mode
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def skipped(name):
    """Say whether a file of the tree is no part of a release."""
    parts = PurePosixPath(name).parts
    return bool(SKIPPED.intersection(parts)) or name.endswith((".pyc", ".egg-info"))


def inside(name, target):
    """Say whether a link in the tree stays in the tree."""
    path = os.path.normpath(os.path.join(os.path.dirname(name), target))
    return not os.path.isabs(target) and path.split("/")[0] != ".."


def tracked(source):
    """List what git would commit of a directory, or None where git has no say."""
    git = ("git", "-C", str(source))
    try:
        ignored = subprocess.run(
            (*git, "check-ignore", "-q", "."), capture_output=True, check=False
        )
        if ignored.returncode != 1:  # 0: the directory is ignored, 128: no repository
            return None
        listed = run(*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except (BuildError, FileNotFoundError):
        return None
    return [name for name in listed.decode().split("\0") if name]


def read_tree(source):
    """Read a working tree: what git doesn't ignore, or every file outside a repository."""
    names = tracked(source)
    if names is None:
        names = [p.relative_to(source).as_posix() for p in source.rglob("*")]
    for name in names:
        path = source / name
        if skipped(name) or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink():
            yield name, 0o777, os.readlink(path)
        elif path.is_file():
            executable = path.stat().st_mode & 0o100
            yield name, 0o755 if executable else 0o644, path.read_bytes()


def read_ref(source, ref):
    """Read a directory of a repository as it was at a git ref."""
    git = ("git", "-C", str(source))
    known = subprocess.run(
        (*git, "rev-parse", "--verify", "-q", "--end-of-options", f"{ref}^{{commit}}"),
        capture_output=True,
        check=False,
    )
    if known.returncode:
        raise BuildError(f"release={ref} is neither a git ref of {source} nor a directory")
    commit = known.stdout.decode().strip()
    prefix = run(*git, "rev-parse", "--show-prefix").decode().strip().rstrip("/")
    # From inside a directory git would look for the path below it once more.
    top = run(*git, "rev-parse", "--show-toplevel").decode().strip()
    tree = f"{commit}:{prefix}"
    data = run("git", "-C", top, "archive", "--format=tar", tree, what=f"git archive {ref}")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if skipped(member.name):
                continue
            if member.issym():
                yield member.name, 0o777, member.linkname
            elif member.isfile():
                mode = 0o755 if member.mode & 0o100 else 0o644
                yield member.name, mode, archive.extractfile(member).read()


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


def platforms(machine):
    """Name every manylinux of Debian 13's C library: pip takes only those it is told."""
    named = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 4, -1)]
    old = ["manylinux2014", "manylinux2010", "manylinux1"]
    return [*named, *(f"{name}_{machine}" for name in old), f"linux_{machine}"]


def collect_wheels(lock, python, machine, directory):
    """Download the wheels of a lock for the target; build the few that are pure source."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    listed = Path(directory, "lock.txt")
    listed.write_text("\n".join(lock) + "\n")
    target = [f"--platform={name}" for name in platforms(machine)]
    target += [f"--python-version={python}", "--implementation=cp"]
    options = ("--quiet", "--no-deps", "--require-hashes", "--dest", directory)
    what = f"no wheels for Python {python} on {machine}"
    run(*pip, "download", *options, *target, "-r", str(listed), what=what)
    listed.unlink()
    for path in sorted(Path(directory).iterdir()):
        if path.suffix != ".whl":  # only a source is published: it must be pure Python
            what = f"{path.name} has no wheel for Python {python} and does not build"
            run(*pip, "wheel", "--quiet", "--no-deps", "-w", directory, str(path), what=what)
            path.unlink()
    wheels = sorted(Path(directory).glob("*.whl"))
    for wheel in wheels:
        check_wheel(wheel.name, python, machine)
    return wheels


def check_wheel(name, python, machine):
    """Refuse a wheel that was built for this machine instead of the target."""
    tag = "cp" + python.replace(".", "")
    try:
        tags = parse_wheel_filename(name)[3]
    except InvalidWheelFilename as error:
        raise BuildError(f"{name} is not a wheel") from error
    for found in tags:
        abi = found.abi in ("none", "abi3", tag)
        if abi and (found.platform == "any" or found.platform in platforms(machine)[:-1]):
            return
    raise BuildError(f"{name} does not run on Python {python} on {machine}: publish a wheel for it")


def build_wheels(lock, python, machine, path):
    """Pack the wheels of a lock, with the list that the hosts install by."""
    with tempfile.TemporaryDirectory() as directory:
        wheels = collect_wheels(lock, python, machine, directory)
        lines = []
        for wheel in wheels:
            name, version, *_ = parse_wheel_filename(wheel.name)
            lines.append(f"{name}=={version} --hash=sha256:{sha256(wheel)}\n")
        entries = [(wheel.name, 0o644, wheel.read_bytes()) for wheel in wheels]
        entries.append(("requirements.txt", 0o644, "".join(lines).encode()))
        write(path, tar(entries))


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
