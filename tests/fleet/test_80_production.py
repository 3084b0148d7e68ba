"""The way of an operator: a copy of inventories/prod, filled in as its comments say."""

import datetime
import json
import re
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from plugins.load import running
from tests.fleet.support import ROOT, STATE, Fleet, lab, play

NETWORK = "10.87.33"
NAME = "shop.evenkeel.test"
SMALL = {"lb1", "lb2", "cache1", "app1", "app2", "db1", "redis1", "storage1"}


def make_certificate(folder):
    """Files as an authority sends them: a chain and a key; return the authority's own file."""
    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in ("Test CA", NAME)]

    def certificate(subject, key, *extensions):
        builder = (
            x509.CertificateBuilder()
            .issuer_name(names[0])
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=90))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority = certificate(
        names[0], keys[0], (x509.BasicConstraints(ca=True, path_length=0), True)
    )
    site = certificate(
        names[1],
        keys[1],
        (x509.SubjectAlternativeName([x509.DNSName(NAME)]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
    )
    (folder / "site.pem").write_bytes(site + authority)
    key = folder / "site.key"
    key.touch(0o600)
    key.write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "authority.pem").write_bytes(authority)
    return folder / "authority.pem"


def fill_in(inventory, keep):
    """Do what the comments of inventories/prod ask for; hosts not in `keep` are left out."""
    lines = []
    for line in (inventory / "hosts.yml").read_text().splitlines():
        host = re.match(r"\s+(\w+): \{ansible_host: \S+\.example\.com\}", line)
        if host and keep is not None and host[1] not in keep:
            continue
        lines.append(line)
    text, count = "\n".join(lines) + "\n", 10
    names = re.findall(r"(\w+\.example\.com)", text)
    for name in dict.fromkeys(names):
        count += 1
        text = re.sub(rf"\b{re.escape(name)}", f"{NETWORK}.{count}", text)
    (inventory / "hosts.yml").write_text(text)

    fleet = inventory / "group_vars/all/fleet.yml"
    text = fleet.read_text()
    for old, new in (
        (r"203\.0\.113\.100", f"{NETWORK}.100"),
        (r"203\.0\.113\.0/24", f"{NETWORK}.1/32"),
        (r"app\.example\.com", NAME),
        (r"files/example\.com\.", "files/site."),
    ):
        text, found = re.subn(old, new, text)
        assert found, f"inventories/prod no longer has {old}"
    fleet.write_text(text)
    assert "example" not in re.sub(
        r"#.*", "", fleet.read_text() + (inventory / "hosts.yml").read_text()
    )
    lab("secrets", "-i", str(inventory))
    subprocess.run(
        ["ansible-vault", "encrypt", str(inventory / "group_vars/all/secrets.yml")],
        check=True,
        capture_output=True,
    )


@contextmanager
def filled_in(keep):
    """A copy of inventories/prod, and the authority that its clients trust."""
    inventory = STATE / "mine"
    vault = STATE / "mine-vault"
    shutil.rmtree(inventory, ignore_errors=True)
    shutil.copytree(ROOT / "inventories/prod", inventory)
    authority = make_certificate(inventory / "files")
    vault.touch(0o600)
    vault.write_text("a vault password of the test\n")
    with pytest.MonkeyPatch.context() as patch:
        # What an operator has in ~/.ssh, and in a shell's profile.
        patch.setenv("ANSIBLE_SSH_COMMON_ARGS", f"-F {STATE / 'ssh_config'}")
        patch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(vault))
        try:
            fill_in(inventory, keep)
            yield inventory, authority
        finally:
            shutil.rmtree(inventory)
            vault.unlink()


def test_a_copy_that_is_filled_in_lacks_nothing_but_its_machines():
    with filled_in(None) as (inventory, _):
        done = play("preflight.yml", inventory=inventory, code=None)
        hosts = Fleet.read(inventory, "", "").hosts
    assert done.code != 0
    said = re.findall(r"^preflight: (.*)$", done.output, re.M)
    assert {line.split()[0] for line in said} == set(hosts), said
    assert all("can't be reached" in line for line in said), said


@pytest.fixture(scope="module", params=[
    pytest.param(SMALL, id="one host a data tier", marks=pytest.mark.full),
    pytest.param(None, id="every host", marks=pytest.mark.full),
])  # fmt: skip
def mine(fleet, request):
    """An operator's fleet on machines with an admin who may use sudo, as clouds hand them out."""
    key = (STATE / "id_ed25519.pub").read_text().strip()
    with filled_in(request.param) as (inventory, authority):
        found = Fleet.read(inventory, f"https://{NAME}", str(authority))
        try:
            lab("up", "-i", str(inventory), "--name", "mine")
            for host in found.hosts:
                found.ssh(
                    host,
                    "useradd -m -s /bin/bash admin && install -d -m 700 -o admin -g admin "
                    f"/home/admin/.ssh && echo '{key}' > /home/admin/.ssh/authorized_keys && "
                    "echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin",
                )
            check = play("site.yml", "--check", inventory=inventory)
            assert set(found.hosts) <= check.recap.keys(), "a check of fresh hosts"
            play("site.yml", inventory=inventory)
            yield found
        finally:
            lab("down", "--name", "mine")


def curl(fleet, path, *options):
    """Ask by the site's name at its virtual IP, as clients with DNS do."""
    return subprocess.run(
        ["curl", "-sS", "--fail-with-body", "--max-time", "10", "--cacert", fleet.ca,
         "--resolve", f"{NAME}:443:{NETWORK}.100", *options, fleet.url + path],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_the_site_answers_by_its_name(mine):
    hosts = {json.loads(curl(mine, "/whoami"))["host"] for _ in range(30)}
    assert hosts == set(mine.groups["app"])
    assert json.loads(curl(mine, "/readyz"))["status"] == "ready"
    assert json.loads(curl(mine, "/sales/total?item=item-1"))["count"] > 0


def test_a_load_by_name_fails_no_request(mine):
    with running(
        mine.url, gets=["/whoami", "/sales/total?item=item-1"], ca=mine.ca,
        connect=f"{NETWORK}.100", duration=5, rate=40,
    ) as load:  # fmt: skip
        load.wait()
    assert load.report["failed"] == 0, load.summary


def test_the_certificate_is_the_given_one(mine):
    shown = curl(mine, "/livez", "-v", "--stderr", "-")
    assert f"CN={NAME}" in shown
    assert "issuer: CN=Test CA" in shown


def test_root_no_longer_logs_in(mine):
    host = mine.hosts[0]
    with pytest.raises(subprocess.CalledProcessError):
        mine.ssh(host, "true")
    assert mine.ssh(host, "sudo -n id -un", user="admin") == "root"


def test_a_second_run_changes_nothing(mine):
    done = play("site.yml", inventory=mine.inventory)
    assert done.changed == {}, done.log
