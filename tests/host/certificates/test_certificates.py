"""Certificates on a host: ours or given, and a key that only root reads."""

import ipaddress
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.host.entry import call

PATH = "/etc/ssl/evenkeel"
CA = Path(__file__).parents[3] / ".lab/molecule-certificates/ca"


def test_only_root_reads_the_key(host):
    key = host.file(f"{PATH}/server.key")
    assert (key.user, key.mode & 0o077) == ("root", 0)
    assert host.run(f"su -s /bin/sh nobody -c 'cat {PATH}/server.key'").rc != 0


def test_key_and_certificate_belong_together(host):
    public = host.check_output(f"openssl pkey -in {PATH}/server.key -pubout")
    assert host.check_output(f"openssl x509 -in {PATH}/server.pem -noout -pubkey") == public


def test_names_the_site_and_lasts(host):
    said = host.check_output(
        f"openssl x509 -in {PATH}/server.pem -noout -checkhost www.example.com"
    )
    assert "does match certificate" in said
    assert host.run(f"openssl x509 -in {PATH}/server.pem -noout -checkend 2592000").rc == 0


def test_clients_that_have_the_authority_trust_it(host):
    """The chain that the host shows leads to the CA, by name and by address."""
    if host.backend.get_hostname() != "own":
        pytest.skip("the given certificate of this scenario is its own authority")
    leaf, *chain = x509.load_pem_x509_certificates(host.file(f"{PATH}/server.pem").content)
    store = Store(x509.load_pem_x509_certificates((CA / "ca.pem").read_bytes()))
    for name in (
        x509.DNSName("www.example.com"),
        x509.IPAddress(ipaddress.ip_address("10.87.13.11")),
    ):
        verifier = PolicyBuilder().store(store).build_server_verifier(name)
        assert verifier.verify(leaf, chain)[0] == leaf
    stranger = PolicyBuilder().store(store).build_server_verifier(x509.DNSName("evil.example.com"))
    with pytest.raises(VerificationError):
        stranger.verify(leaf, chain)


@pytest.mark.parametrize("name", ["www.example.org", "a.b.example.com"])
def test_a_certificate_for_other_names_is_refused(host, name):
    if host.backend.get_hostname() != "given":
        pytest.skip("its own authority signs what is asked for")
    names = json.dumps({"certificates_names": ["example.com", name]})
    done = call("certificates", "main", "-e", names, hosts="given")
    assert done.returncode != 0
    assert "lacks a name of certificates_names: it has DNS:*.example.com, DNS:example.com" in (
        done.stdout
    )


def test_the_authoritys_key_is_not_here(host):
    found = host.check_output("find / -xdev -name 'ca*.key' -o -xdev -name 'ca-key*' | head")
    assert found == ""
