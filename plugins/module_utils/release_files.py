"""What building a release needs of files and commands."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

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
