import json

import pytest

from tests.host.entry import call, converge

SERVER = "10.87.12.11"
PORTS = [80, 7000, 7001, 7002, 9999]


def connects(host, address, port):
    """Say whether a TCP connection opens; a packet that is dropped times out."""
    return host.run(f"timeout 1.5 bash -c 'exec 3<>/dev/tcp/{address}/{port}'").rc == 0


@pytest.fixture
def name(host):
    return host.ansible.get_variables()["inventory_hostname"]


def test_ports_open_as_the_rules_say(host, name):
    """Something listens on each port of the server: see prepare.yml."""
    expected = {
        "server": set(PORTS),  # the loopback is free
        "friend": {80, 7000, 7001},
        "stranger": {80},
    }[name]
    assert {port for port in PORTS if connects(host, SERVER, port)} == expected


def test_ssh_is_for_operators_only(host, name):
    assert connects(host, SERVER, 22) is (name == "server")


@pytest.mark.parametrize("port", [80, 7000, 9999])
def test_ipv6_has_the_same_rules(host, name, port):
    """Only an open port answers a neighbour on the link."""
    if name == "server":
        target = "::1"
        expected = True
    else:
        target = "fe80::12:11%eth0"
        expected = port == 80
    code = f"import socket; socket.create_connection(('{target}', {port}), 1.5)"
    assert (host.run(f'python3 -c "{code}"').rc == 0) is expected


def test_ping_answers(host):
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); s.settimeout(2);"
        f"s.sendto(bytes.fromhex('0800f7ff00000000'), ('{SERVER}', 0)); s.recv(99)"
    )
    assert host.run(f'python3 -c "{code}"').rc == 0


def test_other_tables_are_left_alone(host):
    """prepare.yml made one before the role ran."""
    assert host.run("nft list table ip bystander").rc == 0
    assert "flush ruleset" not in host.file("/etc/evenkeel/firewall.nft").content_string


def test_rules_come_back_at_boot_and_by_hand(host):
    unit = host.service("evenkeel-firewall")
    assert unit.is_enabled
    before = host.check_output("nft list table inet evenkeel")
    host.check_output("nft delete table inet evenkeel")
    host.check_output("systemctl restart evenkeel-firewall")
    assert host.check_output("nft list table inet evenkeel") == before


def test_vrrp_only_from_its_peer(host, name):
    rules = host.check_output("nft list chain inet evenkeel input").splitlines()
    # nft names the protocol where the host has a list of names.
    vrrp = [line.strip().replace("vrrp", "112") for line in rules if "virtual IP" in line]
    wanted = 'ip saddr 10.87.12.12 meta l4proto 112 accept comment "virtual IP"'
    assert vrrp == ([wanted] if name == "server" else [])


def test_what_is_not_accepted_is_dropped(host):
    assert "policy drop;" in host.check_output("nft list chain inet evenkeel input")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"firewall_operators": ["192.0.2.0/24"]}, "from 10.87.12.1: add 10.87.12.1"),
        ({"ansible_port": 2222}, "on port 2222: let its sshd listen on port 22"),
    ],
)
def test_nobody_is_locked_out(host, name, said, reason):
    if name != "server":
        pytest.skip("one host tells")
    before = host.check_output("nft list chain inet evenkeel input")
    host.check_output("nft insert rule inet evenkeel input tcp dport 2222 accept")
    host.check_output("/usr/sbin/sshd -p 2222 -o PidFile=/run/sshd-2222.pid")
    try:
        done = call("firewall", "main", "-e", json.dumps(said), hosts="server")
    finally:
        host.check_output("kill $(cat /run/sshd-2222.pid)")
        host.check_output("systemctl restart evenkeel-firewall")
    assert done.returncode != 0
    assert f"server would no longer accept SSH {reason}" in done.stdout
    assert host.check_output("nft list chain inet evenkeel input") == before


def test_rules_that_an_interrupted_run_left_unloaded_are_loaded_once(host, name):
    if name != "server":
        pytest.skip("one host tells")
    loaded = "systemctl show evenkeel-firewall --value --property=ActiveEnterTimestampMonotonic"
    host.check_output("touch /etc/evenkeel/firewall.nft")
    for loads in (True, False):
        before = host.check_output(loaded)
        done = converge("firewall", {}, hosts="server")
        assert done.returncode == 0, done.stdout
        assert (host.check_output(loaded) != before) is loads, done.stdout
    assert " changed=0 " in done.stdout
