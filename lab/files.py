"""Files of the lab on this machine, all under .lab/: keys, SSH configuration, secrets, env."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from pathlib import Path

from lab.inventory import Inventory

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
SSH_CONFIG = STATE / "ssh_config"
HOST_FILES = STATE / "host"  # mounted read-only into every container
NETWORKS = "10.87.*"  # every network that labs and test scenarios use
SECRETS_TEMPLATE = ROOT / "inventories/prod/group_vars/all/secrets.yml"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write `text` to `path` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.touch(mode)
    part.write_text(text)
    part.replace(path)


def keygen(path: Path) -> str:
    """Make an Ed25519 key at `path` unless there is one; return its public half."""
    if not path.with_suffix(".pub").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "evenkeel-lab", "-f", str(path)],
            check=True,
        )
    return path.with_suffix(".pub").read_text().strip()


def prepare(inventory: Inventory | None = None) -> None:
    """Make the keys and the SSH configuration; name the hosts of `inventory` in it, if given."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    operator = keygen(STATE / "id_ed25519")
    host_key = keygen(HOST_FILES / "ssh_host_ed25519_key")
    write(HOST_FILES / "authorized_keys", f"{operator}\n")
    # All containers share one host key, so that a rebuilt one is still known.
    write(STATE / "known_hosts", f"{NETWORKS} {' '.join(host_key.split()[:2])}\n")
    names = STATE / "ssh_hosts"
    if inventory:
        write(
            names,
            "".join(f"Host {h.name}\n  HostName {h.address}\n" for h in inventory.hosts),
        )
    elif not names.exists():
        write(names, "")
    only = " ".join([NETWORKS, *re.findall(r"^Host (\S+)", names.read_text(), re.M)])
    write(
        SSH_CONFIG,
        f"Include {names}\n\nHost {only}\n  User root\n  IdentityFile {STATE / 'id_ed25519'}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {STATE / 'known_hosts'}\n"
        "  StrictHostKeyChecking yes\n  CheckHostIP no\n  LogLevel ERROR\n",
        0o600,
    )


def fill_secrets(target: Path) -> bool:
    """Write `target` from the template with a random value for each secret; keep what is there.

    A secret that the template gained since is added, and one that it does not know stays: a
    second key, for example, while keys are rotated. Returns whether anything was written.
    """
    template = SECRETS_TEMPLATE.read_text()
    pattern = re.compile(r"^(secret_\w+): (.+)$", re.M)
    have = dict(pattern.findall(target.read_text()) if target.exists() else [])

    def value(match: re.Match) -> str:
        name, old = match.groups()
        kept = have.get(name)
        if kept and "CHANGE_ME" not in kept:
            return f"{name}: {kept}"
        return f'{name}: "{secrets.token_hex(24) if "CHANGE_ME" in old else old}"'

    known = dict(pattern.findall(template))
    own = "".join(f"{name}: {have[name]}\n" for name in have if name not in known)
    text = pattern.sub(value, template + own)
    if target.exists() and target.read_text() == text:
        return False
    write(target, text, 0o600)
    return True


def write_env(inventory: Inventory, path: Path) -> None:
    """Write .lab/env, the shell file that tests and people source; `path` is the inventory's."""
    write(
        STATE / "env",
        f"LAB_URL=https://{inventory.virtual_ip}\n"
        f"LAB_CA={STATE / 'ca/ca.pem'}\n"
        f"LAB_VIP={inventory.virtual_ip}\n"
        f"LAB_SSH_CONFIG={SSH_CONFIG}\n"
        f"LAB_INVENTORY={path}\n",
    )
