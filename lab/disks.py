"""Small disks of hosts, to be filled by drills: files of this machine, mounted by loop devices."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.files import STATE
from lab.inventory import LabError

DISKS = STATE / "disks"


def run(*argv: str) -> None:
    """Run a command; raise LabError with its last words when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()[-300:]}")


@contextmanager
def obstacles() -> Iterator[None]:
    """Turn what the system refuses into LabError."""
    try:
        yield
    except OSError as error:
        raise LabError(str(error)) from error


def mount_point(container: str, path: str) -> Path:
    """Return where the disk for `path` of a container is mounted."""
    return DISKS / container / path.strip("/").replace("/", "-")


@obstacles()
def ensure(container: str, path: str, size: str) -> None:
    """Mount the disk for `path` of a container; make it if it isn't there."""
    folder = mount_point(container, path)
    image = folder.with_suffix(".img")
    folder.mkdir(parents=True, exist_ok=True)
    if not image.exists():
        part = image.with_suffix(".part")
        part.unlink(missing_ok=True)  # of one that was killed
        run("truncate", "--size", size, str(part))
        run("mkfs.ext4", "-q", "-m", "0", str(part))
        part.rename(image)
    if not folder.is_mount():
        run("mount", "-o", "loop", str(image), str(folder))
        if (folder / "lost+found").exists():
            (folder / "lost+found").rmdir()


@obstacles()
def remove(container: str) -> None:
    """Unmount and remove the disks of a container, also half made ones; none is no error."""
    place = DISKS / container
    if not place.exists():
        return
    for folder in [path for path in place.iterdir() if path.is_dir()]:
        while folder.is_mount():
            run("umount", str(folder))
        folder.rmdir()
    for file in [*place.glob("*.img"), *place.glob("*.part")]:
        file.unlink()
    place.rmdir()


def owners() -> list[str]:
    """Return the containers that disks were made for, whether they are there or not."""
    return sorted(path.name for path in DISKS.iterdir()) if DISKS.exists() else []
