"""The virtual IP: one host holds it, and it leaves a host whose check fails."""

import time

import pytest
import testinfra

from tests.host.entry import converge

testinfra_hosts = ["ansible://lb1", "ansible://lb2"]
ADDRESS = "10.87.17.100"
NEIGHBOUR = "10.87.17.21"
NOBODY = "10.87.17.99"


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


def test_the_check_of_neighbours_needs_no_root(host):
    """One neighbour that answers is enough; keepalived's user may ask."""
    path = "/etc/keepalived/hear-neighbours"
    script = host.file(path)
    assert (script.user, script.mode) == ("root", 0o755)
    assert NOBODY in script.content_string
    assert host.run(f"runuser -u keepalived_script -- {path}").rc == 0


def test_a_host_that_hears_no_neighbour_gives_the_address_up(pair):
    """Its peer takes it, keeps it when the host hears again, and gives it up itself when deaf."""
    (first,) = holders_within(pair, 15)
    deafen, mend = (f"ip route {verb} blackhole {NEIGHBOUR}" for verb in ("add", "del"))
    try:
        pair[first].check_output(deafen)
        began = time.monotonic()
        (second,) = holders_within(pair, 15, other_than=first)
        assert time.monotonic() - began < 8
        pair[first].check_output(mend)
        time.sleep(5)
        assert holders(pair) == [second], "the address moved back: a second interruption"
        for host in pair.values():
            host.check_output(deafen)
        assert holders_within(pair, 15, wanted=0) == []
    finally:
        for host in pair.values():
            host.run(mend)
    assert len(holders_within(pair, 15)) == 1


def test_the_role_stops_where_no_neighbour_answers(pair):
    """Before it changes anything, and with a line that says what to do."""
    script = pair["lb1"].file("/etc/keepalived/hear-neighbours").content_string
    done = converge("keepalived", {"keepalived_neighbours": [NOBODY]}, hosts="lb1")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"none of {NOBODY} answers a ping from lb1" in said
    assert "keepalived_neighbours: []" in said
    assert pair["lb1"].file("/etc/keepalived/hear-neighbours").content_string == script


def test_the_last_balancer_keeps_the_address_while_its_peer_is_taken_away_and_comes_back(pair):
    (first,) = holders_within(pair, 15)
    (other,) = set(pair) - {first}
    pair[other].check_output("systemctl stop keepalived")
    try:
        began = pair[first].check_output("sleep 1; date +%s")
        for peers in ([], [pair[other].ansible.get_variables()["ansible_host"]]):
            done = converge("keepalived", {"keepalived_peers": peers}, hosts=first)
            assert done.returncode == 0, done.stdout
        said = pair[first].check_output(f"sleep 2; journalctl -u keepalived --since @{began}")
        assert said.count("Reload complete") == 2
        assert "STATE" not in said, "it let go of the address"
    finally:
        pair[other].check_output("systemctl start keepalived")


def test_configuration_that_an_interrupted_run_left_unloaded_is_loaded_once(pair):
    host = pair["lb1"]
    host.check_output("touch /etc/keepalived/keepalived.conf")
    for loads in (1, 0):
        began = host.check_output("sleep 1; date +%s")
        done = converge("keepalived", {}, hosts="lb1")
        assert done.returncode == 0, done.stdout
        said = host.check_output(f"sleep 2; journalctl -u keepalived --since @{began}")
        assert said.count("Reload complete") == loads, done.stdout
    assert " changed=0 " in done.stdout
