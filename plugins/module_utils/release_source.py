"""The source of a release: a working tree, or a git ref of one."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import PurePosixPath

from ansible.module_utils.release_files import BuildError, run

SKIPPED = {
    ".git", ".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__", ".pytest_cache",
    ".ruff_cache", ".mypy_cache", ".env", ".releases",
}  # fmt: skip


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
