"""Files of the lab on this machine, all under .lab/: keys, SSH configuration, secrets, env."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from pathlib import Path

from lab.inventory import Inventory, LabError

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
SSH_CONFIG = STATE / "ssh_config"
HOST_FILES = STATE / "host"  # mounted read-only into every container
NETWORKS = "10.87.*"  # every network that labs and test scenarios use
SECRETS_TEMPLATE = ROOT / "inventories/prod/group_vars/all/secrets.yml"
SECRET = re.compile(r"^(secret_\w+):", re.M)
PLACEHOLDER = re.compile(r"""^(secret_\w+:[ \t]+)(["']?)CHANGE_ME\2(?=[ \t]*(?:#.*)?$)""", re.M)


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
    """Give each secret of `target` that is CHANGE_ME a random value; all else stays as it is.

    A secret that the template has and the inventory has not is added, with what the template says
    of it. Returns whether anything was written. Raises LabError when the file is encrypted.
    """
    target = target.resolve()  # a link stays one
    had = target.read_text() if target.exists() else ""
    if had.startswith("$ANSIBLE_VAULT"):
        raise LabError(
            f"{target} is encrypted: type ansible-vault decrypt {target}, repeat this, "
            f"and then ansible-vault encrypt {target}"
        )
    text = had + missing_secrets(target, had) if had.strip() else SECRETS_TEMPLATE.read_text()
    text = PLACEHOLDER.sub(lambda found: f'{found[1]}"{secrets.token_hex(24)}"', text)
    if text == had:
        return False
    write(target, text, target.stat().st_mode & 0o777 if had else 0o600)
    return True


def missing_secrets(target: Path, text: str) -> str:
    """Return the template's paragraphs, without the secrets that are in a file beside `target`."""
    beside = [path.read_text() for path in target.parent.glob("*.yml") if path != target]
    known = {name for each in [text, *beside] for name in SECRET.findall(each)}
    added = "" if text.endswith("\n") else "\n"
    for paragraph in SECRETS_TEMPLATE.read_text().split("\n\n"):
        lines = paragraph.splitlines()
        lines = [line for line in lines if not known.intersection(SECRET.findall(line))]
        if any(SECRET.match(line) for line in lines):
            added += "\n" + "\n".join(lines) + "\n"
    return added if added.strip() else ""


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
