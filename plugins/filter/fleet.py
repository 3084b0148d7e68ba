"""Filters of the wiring: from the groups of an inventory to the inputs of roles."""

from __future__ import annotations


def members(hosts: list[str], addresses: dict[str, str], port: int | None = None) -> list[dict]:
    """Return `hosts` as dictionaries of name, address and, when given, port."""
    extra = {} if port is None else {"port": port}
    return [{"name": host, "address": addresses[host], **extra} for host in hosts]


def endpoints(hosts: list[dict], port: int, scheme: str = "") -> str:
    """Return members as `address:port,…`, each with `scheme` in front."""
    return ",".join(f"{scheme}{host['address']}:{port}" for host in hosts)


def routes(processes: dict, hosts: list[dict]) -> list[dict]:
    """Return a balancer's routes: one for each process type that listens."""
    return [
        {
            "name": kind,
            "path": process.get("route", "/"),
            "websocket": process.get("websocket", False),
            "servers": [{**host, "port": process["listen"]} for host in hosts],
        }
        for kind, process in processes.items()
        if process.get("listen")
    ]


class FilterModule:
    """Make the filters known to Ansible."""

    def filters(self) -> dict:
        """Name the filters."""
        return {"members": members, "endpoints": endpoints, "routes": routes}
