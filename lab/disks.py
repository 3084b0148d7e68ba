"""Small disks of hosts, to be filled by drills: files of this machine, mounted by loop devices."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.files import STATE
from lab.inventory import LabError

DISKS = STATE / "disks"


def run(*argv: str) -> None:
    """Run a command; raise LabError with its last words when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()[-300:]}")


def mount_point(container: str, path: str) -> Path:
    """Return where the disk for `path` of a container is mounted."""
    return DISKS / container / path.strip("/").replace("/", "-")


def ensure(container: str, path: str, size: str) -> None:
    """Mount the disk for `path` of a container; make it if it isn't there."""
    folder = mount_point(container, path)
    image = folder.with_suffix(".img")
    folder.mkdir(parents=True, exist_ok=True)
    if not image.exists():
        part = image.with_suffix(".part")
        run("truncate", "--size", size, str(part))
        run("mkfs.ext4", "-q", "-m", "0", str(part))
        part.rename(image)
    if not folder.is_mount():
        run("mount", "-o", "loop", str(image), str(folder))
        if (folder / "lost+found").exists():
            (folder / "lost+found").rmdir()


def remove(container: str) -> None:
    """Unmount and remove the disks of a container; none is no error."""
    for image in (DISKS / container).glob("*.img"):
        folder = image.with_suffix("")
        if folder.is_mount():
            run("umount", str(folder))
        folder.rmdir()
        image.unlink()
    if (DISKS / container).exists():
        (DISKS / container).rmdir()
