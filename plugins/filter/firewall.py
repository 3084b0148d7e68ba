"""Filters that turn the fleet's table of ports into the rules of one host."""

from ipaddress import collapse_addresses, ip_address, ip_network

from ansible.errors import AnsibleFilterError


def _network(value):
    try:
        return ip_network(str(value), strict=False)
    except ValueError as error:
        raise AnsibleFilterError(f"'{value}' is not an IP address or network") from error


def in_networks(address, networks):
    """Say whether one of the networks holds the address."""
    ip = ip_address(str(address).partition("%")[0])  # a link-local address names its interface
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in network for network in map(_network, networks))


def networks_by_family(networks):
    """Sort networks into nftables' families; overlaps, which a set refuses, are merged."""
    parsed = [_network(value) for value in networks]
    return {
        family: [
            str(network.network_address if network.num_addresses == 1 else network)
            for network in collapse_addresses(n for n in parsed if n.version == version)
        ]
        for family, version in (("ip", 4), ("ip6", 6))
    }


def firewall_rules(table, tiers, groups, addresses, operators):
    """Return the firewall_rules of a host that belongs to `tiers`.

    `table` is playbooks/group_vars/all/ports.yml. A row's `from` holds the names of tiers, `any`
    or `operators`; a tier without hosts opens nothing.
    """
    rules = []
    for row in table:
        if row["tier"] not in tiers:
            continue
        if "any" in row["from"]:
            sources = "any"
        else:
            hosts = {host for tier in row["from"] for host in groups.get(tier, [])}
            sources = sorted(str(addresses[host]) for host in hosts)
            if "operators" in row["from"]:
                sources += [str(network) for network in operators]
        ports = sorted({int(port) for port in row.get("ports", [])})
        if sources and (ports or row["protocol"] == "vrrp"):
            rules.append(
                {"name": row["name"], "protocol": row["protocol"], "ports": ports, "from": sources}
            )
    return rules


class FilterModule:
    """Registers the filters."""

    def filters(self):
        """Return the filters by name."""
        return {
            "in_networks": in_networks,
            "networks_by_family": networks_by_family,
            "firewall_rules": firewall_rules,
        }
