"""The virtual IP: one host holds it, and it leaves a host whose check fails."""

import time

import pytest
import testinfra

ADDRESS = "10.87.17.100"


@pytest.fixture
def pair(request):
    """Return both hosts by name, whichever host the test is run for."""
    inventory = request.config.option.ansible_inventory
    ssh_config = request.config.option.ssh_config
    return {
        name: testinfra.get_host(
            f"ansible://{name}?force_ansible=False", ansible_inventory=inventory,
            ssh_config=ssh_config,
        )
        for name in ("lb1", "lb2")
    }  # fmt: skip


def holders(pair):
    return [n for n, host in pair.items() if f"{ADDRESS}/32" in host.check_output("ip -o address")]


def holders_within(pair, seconds, wanted=1, other_than=None):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = holders(pair)
        if len(found) == wanted and other_than not in found:
            return found
        time.sleep(0.2)
    return holders(pair)


def test_runs_and_its_check_does_not_run_as_root(host):
    assert host.service("keepalived").is_running
    assert host.service("keepalived").is_enabled
    assert (
        "script_user keepalived_script"
        in host.file("/etc/keepalived/keepalived.conf").content_string
    )


def test_one_host_holds_the_address_and_it_moves_when_the_check_fails(pair):
    (first,) = holders_within(pair, 15)
    try:
        pair[first].check_output("systemctl stop backend")
        (second,) = holders_within(pair, 15, other_than=first)
        assert second != first
    finally:
        pair[first].check_output("systemctl start backend")
    time.sleep(4)
    assert holders(pair) == [second], "the address moved back: a second interruption"
