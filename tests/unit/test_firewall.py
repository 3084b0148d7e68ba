from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from plugins.filter.firewall import firewall_rules, in_networks, networks_by_family

ROOT = Path(__file__).parents[2]
TIERS = ["lb", "cache", "app", "db", "redis", "storage", "monitor"]
GROUPS = {tier: [f"{tier}1", f"{tier}2"] for tier in TIERS}
ADDRESSES = {
    host: f"10.0.{number}.{index}"
    for number, tier in enumerate(TIERS)
    for index, host in enumerate(GROUPS[tier], 1)
}
OPERATORS = ["192.0.2.0/24"]


@pytest.fixture(scope="module")
def table():
    ports = yaml.safe_load((ROOT / "playbooks/group_vars/all/ports.yml").read_text())
    rows = ports["fleet_ports"]
    return [{**row, "ports": [8000, 8100]} if row["name"] == "app" else row for row in rows]


def allowed(table, tier, groups=GROUPS):
    """Return the tiers that may open each port of a tier's host."""
    by_address = {address: host[:-1] for host, address in ADDRESSES.items()}
    return {
        port: {"any"} if rule["from"] == "any" else {by_address.get(a, a) for a in rule["from"]}
        for rule in firewall_rules(table, [tier], groups, ADDRESSES, OPERATORS)
        for port in rule["ports"] or [rule["protocol"]]
    }


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        ("lb", {80: {"any"}, 443: {"any"}, "vrrp": {"lb"}}),
        ("cache", {6081: {"lb", "app"}}),
        ("app", {8000: {"lb", "cache"}, 8100: {"lb", "cache"}}),
        (
            "db",
            {
                5432: {"app", "db", "monitor"},
                8008: {"app", "db", "monitor"},
                2379: {"db", "monitor"},
                2380: {"db"},
            },
        ),
        ("redis", {6379: {"app", "redis", "monitor"}, 26379: {"app", "redis", "monitor"}}),
        (
            "storage",
            {
                8080: {"app", "db", "lb"},
                8443: {"db", "redis", "storage"},
                **{port: {"storage"} for port in (6200, 6201, 6202, 873, 11211)},
            },
        ),
        ("monitor", {port: {"192.0.2.0/24"} for port in (9090, 9093, 443)}),
    ],
)
def test_each_tier_is_reached_only_by_those_of_the_design(table, tier, expected):
    assert allowed(table, tier) == expected


def test_a_missing_tier_opens_nothing(table):
    groups = {tier: hosts for tier, hosts in GROUPS.items() if tier in ("app", "db")}
    assert allowed(table, "cache", groups) == {6081: {"app"}}
    assert allowed(table, "app", groups) == {}


def test_a_host_of_two_tiers_opens_the_ports_of_both(table):
    rules = firewall_rules(table, ["db", "redis"], GROUPS, ADDRESSES, OPERATORS)
    assert {rule["name"] for rule in rules} == {
        "PostgreSQL", "etcd clients", "etcd peers", "Redis",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("address", "inside"),
    [("192.0.2.7", True), ("::ffff:192.0.2.7", True), ("192.0.3.7", False), ("fe80::1%eth0", True)],
)
def test_in_networks(address, inside):
    assert in_networks(address, ["192.0.2.0/24", "fe80::/10"]) is inside


def test_networks_by_family_merges_overlaps():
    assert networks_by_family(["10.0.0.0/24", "10.0.0.7", "2001:db8::1", "10.1.0.1"]) == {
        "ip": ["10.0.0.0/24", "10.1.0.1"],
        "ip6": ["2001:db8::1"],
    }


def test_a_name_is_not_a_network():
    with pytest.raises(AnsibleFilterError, match="db1"):
        networks_by_family(["db1"])
