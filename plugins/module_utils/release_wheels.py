"""The wheels of a release: those of its lock, for the hosts and not for this machine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ansible.module_utils.release_files import BuildError, run, sha256, tar, write

try:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename
except ImportError:  # release_build says so
    InvalidWheelFilename = parse_wheel_filename = None


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
