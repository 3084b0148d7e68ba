"""The host image: a minimal Debian with systemd, sshd and Python, built from Debian's archive."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from lab.inventory import LabError

PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo"),
    *("python3", "python3-apt", "iproute2", "ca-certificates", "curl", "procps"),
]

# Files that differ from a fresh server's: keys come by a mount, dpkg need not wait for the disk.
FILES = {
    "etc/ssh/sshd_config.d/00-lab.conf": (
        "HostKey /etc/evenkeel-lab/ssh_host_ed25519_key\n"
        "AuthorizedKeysFile .ssh/authorized_keys /etc/evenkeel-lab/authorized_keys\n"
    ),
    "etc/dpkg/dpkg.cfg.d/00-lab": "force-unsafe-io\n",
    "etc/apt/apt.conf.d/00-lab": 'Acquire::Languages "none";\nAcquire::Retries "5";\n',
    "etc/machine-id": "",
}
SUITES = ("bookworm", "trixie")


def tag(suite: str) -> str:
    """Name of the image of `suite`; it changes with the recipe, so an old image is not used."""
    recipe = hashlib.sha256(repr((PACKAGES, FILES)).encode()).hexdigest()[:12]
    return f"localhost/evenkeel-host:{suite}-{recipe}"


def ensure(suite: str) -> str:
    """Build the image of a Debian `suite` unless it is there; return its name.

    Raises LabError when the archive can't be reached or the suite is unknown.
    """
    name = tag(suite)
    if suite not in SUITES:
        raise LabError(f"lab_release {suite} is unknown: use one of {', '.join(SUITES)}")
    if subprocess.run(["podman", "image", "exists", name]).returncode == 0:
        return name
    print(f"    building the Debian {suite} host image (about 30 s)", flush=True)
    with tempfile.TemporaryDirectory(prefix="evenkeel-image-") as scratch:
        overlay, tar = Path(scratch, "overlay"), Path(scratch, "root.tar")
        for path, text in FILES.items():
            file = overlay / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        build = subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                f"--customize-hook=sync-in {overlay} /",
                "--customize-hook=rm -f $1/etc/ssh/ssh_host_*",
                "--customize-hook=chroot $1 systemctl mask getty.target console-getty.service",
                suite,
                str(tar),
            ],
            capture_output=True,
            text=True,
        )
        if build.returncode:
            raise LabError(f"the {suite} image did not build: {build.stderr.strip()[-600:]}")
        subprocess.run(["podman", "import", "-q", str(tar), name], check=True, capture_output=True)
    return name
