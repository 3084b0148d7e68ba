"""Preflight looks and leaves no trace."""


def test_left_nothing_on_the_host(host):
    assert host.check_output("find / -xdev -name '*preflight*' 2>/dev/null | head") == ""


def test_installed_nothing(host):
    assert not host.package("nginx").is_installed
    assert not host.package("chrony").is_installed
