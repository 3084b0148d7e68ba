"""Who can open a connection to what: from every host, to every host, and from outside."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fleet.support import STATE

WORLD = "world"  # this machine, which is on none of the fleet's hosts
ANY = {"lb", "cache", "app", "db", "redis", "storage", "monitor", WORLD}

# Section 3 of the design: tier, port, and the tiers that may open a connection to it.
TABLE = {
    "lb": {80: ANY, 443: ANY},
    "cache": {6081: {"lb", "app"}},
    "app": {8000: {"lb", "cache"}, 8100: {"lb", "cache"}, 8200: {"lb", "cache"}},
    "db": {port: {"app", "db", "monitor"} for port in (5432, 8008, 2379, 2380)},
    "redis": {port: {"app", "redis", "monitor"} for port in (6379, 26379)},
    "storage": {
        8080: {"app", "db", "lb"},
        8443: {"db", "redis", "storage"},
        **{port: {"storage"} for port in (6200, 6201, 6202, 873, 11211)},
    },
}
# What somebody needs who does the table's work; the rest of it is allowed, not demanded.
NEEDED = {
    ("lb", 80): ANY,
    ("lb", 443): ANY,
    ("cache", 6081): {"lb", "app"},
    ("app", 8000): {"lb", "cache"},
    ("app", 8100): {"lb"},
    ("app", 8200): {"lb"},
    ("db", 5432): {"app"},
    ("redis", 6379): {"app"},
    ("redis", 26379): {"app"},
    ("storage", 8080): {"app", "lb"},
    ("storage", 8443): {"db", "redis"},
}
UNUSED = 7777  # something listens there during the test: only the firewall keeps it closed
PORTS = sorted({port for ports in TABLE.values() for port in ports} | {22, 25, 111, 8081, UNUSED})

SCRIPT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def opens(pair):
    try:
        with socket.create_connection(tuple(pair), 1.0):
            return pair
    except OSError:
        return None
with ThreadPoolExecutor(100) as pool:
    print(json.dumps([pair for pair in pool.map(opens, {pairs}) if pair]))
"""


def connections(fleet, source):
    """Every (host, port) that a connection from `source` is accepted at."""
    names = {address: host for host, address in fleet.addresses.items()}
    pairs = [
        [address, port]
        for host, address in fleet.addresses.items()
        for port in PORTS
        if host != source  # a host may talk to itself
    ]
    script = SCRIPT.replace("{pairs}", repr(pairs))
    if source == WORLD:
        command = ["python3", "-"]
    else:
        address = fleet.addresses[source]
        command = ["ssh", "-F", str(STATE / "ssh_config"), address, "python3 -"]
    done = subprocess.run(
        command, input=script, check=True, capture_output=True, text=True, timeout=60
    )
    return {(names[address], port) for address, port in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def tiers(fleet):
    found = {}
    for tier in ANY - {WORLD}:
        for host in fleet.groups.get(tier, []):
            found.setdefault(host, set()).add(tier)
    return found | {WORLD: {WORLD}}


@pytest.fixture(scope="module")
def listening(fleet):
    """On each host, the ports that something listens on for others."""
    found = {}
    for host in fleet.hosts:
        lines = fleet.ssh(host, "ss -Hltn").splitlines()
        local = [line.split()[3].rpartition(":") for line in lines]
        found[host] = {
            int(port) for address, _, port in local if not address.startswith(("127.", "[::1]"))
        }
    return found


@pytest.fixture(scope="module")
def matrix(fleet):
    """What each host, and this machine, can connect to."""
    unit = "evenkeel-test-listener"
    start = f"systemd-run -q --unit {unit} python3 -m http.server {UNUSED}"
    try:
        for host in fleet.hosts:
            fleet.ssh(host, f"{start} && timeout 10 sh -c 'until ss -Hltn | grep -q :{UNUSED}; "
                            "do sleep 0.1; done'")  # fmt: skip
        with ThreadPoolExecutor(4) as pool:
            sources = [*fleet.hosts, WORLD]
            return dict(
                zip(sources, pool.map(lambda s: connections(fleet, s), sources), strict=True)
            )
    finally:
        for host in fleet.hosts:
            fleet.ssh(host, f"systemctl stop {unit}")


def allowed(tiers, source, target, port):
    return any(tiers[source] & TABLE[tier].get(port, set()) for tier in tiers[target])


def test_only_what_the_table_allows_can_be_connected_to(matrix, tiers):
    wrong = {
        (source, target, port)
        for source, opened in matrix.items()
        for target, port in opened
        if not allowed(tiers, source, target, port) and not (source == WORLD and port == 22)
    }
    assert wrong == set()


def test_what_the_fleet_needs_can_be_connected_to(matrix, tiers, listening):
    missing = {
        (source, target, port)
        for source in matrix
        for target in tiers
        if target not in (source, WORLD)
        for (tier, port), users in NEEDED.items()
        if tier in tiers[target] and tiers[source] & users and (target, port) not in matrix[source]
    }
    assert missing == set()
    for (tier, port), _ in NEEDED.items():
        assert any(port in listening[host] for host in tiers if tier in tiers[host]), (tier, port)


def test_the_operator_reaches_every_host_by_ssh(matrix, fleet):
    assert {target for target, port in matrix[WORLD] if port == 22} == set(fleet.hosts)


def test_nothing_unknown_listens(tiers, listening):
    """A service that somebody added without a line in the table shows up here."""
    for host, ports in listening.items():
        known = {22, UNUSED}.union(*(TABLE[tier] for tier in tiers[host]))
        assert ports - known == set(), host


def test_a_firewall_that_is_gone_would_be_noticed(fleet):
    """Rules are loaded, and loaded again at boot."""
    for host in fleet.hosts:
        assert "policy drop" in fleet.ssh(host, "nft list chain inet evenkeel input")
