"""Certificates on a host: ours or given, and a key that only root reads."""

PATH = "/etc/ssl/evenkeel"


def test_only_root_reads_the_key(host):
    key = host.file(f"{PATH}/server.key")
    assert (key.user, key.mode & 0o077) == ("root", 0)
    assert host.run(f"su -s /bin/sh nobody -c 'cat {PATH}/server.key'").rc != 0


def test_key_and_certificate_belong_together(host):
    public = host.check_output(f"openssl pkey -in {PATH}/server.key -pubout")
    assert host.check_output(f"openssl x509 -in {PATH}/server.pem -noout -pubkey") == public


def test_names_the_site_and_lasts(host):
    text = host.check_output(f"openssl x509 -in {PATH}/server.pem -noout -ext subjectAltName")
    assert "DNS:www.example.com" in text
    assert host.run(f"openssl x509 -in {PATH}/server.pem -noout -checkend 2592000").rc == 0


def test_the_authoritys_key_is_not_here(host):
    found = host.check_output("find / -xdev -name 'ca*.key' -o -xdev -name 'ca-key*' | head")
    assert found == ""
