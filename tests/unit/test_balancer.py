"""The balancer's methods, as they reach nginx's configuration."""

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.test_templates import Renderer, trust_as_template

ROLE = Path(__file__).resolve().parents[2] / "roles/balancer"
SPECS = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
METHODS = {
    "least_conn": "least_conn",
    "round_robin": "",
    "ip_hash": r"hash \$remote_addr consistent",
    "sticky_cookie": r"hash \$balancer_sticky consistent",
}


def test_every_method_is_known_here():
    assert set(SPECS["options"]["balancer_method"]["choices"]) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_that_of_every_route(method):
    renderer, chosen = Renderer("lab", "balancer"), {"balancer_method": method}
    groups = {
        group["name"]: group
        for group in yaml.safe_load(renderer.render("upstreams.yml.j2", chosen))
    }
    for route in ("web", "realtime"):
        for group in (f"balancer_{route}", f"balancer_{route}_fresh"):
            assert re.fullmatch(METHODS[method], groups[group]["balance"])
    site = renderer.render("balancer.conf.j2", chosen)
    assert ("Set-Cookie $balancer_set_sticky" in site) == (method == "sticky_cookie")
    assert ("$balancer_sticky {" in site) == (method == "sticky_cookie")


@pytest.mark.parametrize("balance", METHODS.values())
def test_the_method_stands_before_kept_connections(balance):
    group = {"name": "one", "servers": [{"address": "192.0.2.7", "port": 80}], "keepalive": 2}
    group["balance"] = balance.replace("\\", "")
    text = Renderer("lab", "nginx").render("upstreams.conf.j2", {"nginx_upstreams": [group]})
    lines = [line.strip() for line in text.splitlines()]
    if balance:
        assert lines.index(f"{group['balance']};") < lines.index("keepalive 2;")
    assert ";" not in lines, "an empty line that ends nothing"


@pytest.mark.parametrize("limit", [0, 7])
def test_websockets_of_an_address_are_limited_or_not(limit):
    site = Renderer("lab", "balancer").render(
        "balancer.conf.j2", {"balancer_websocket_limit": limit}
    )
    assert site.count("limit_conn_zone $balancer_websocket_from") == (limit > 0)
    assert re.findall(r"limit_conn balancer_websockets (\d+);", site) == ["7"] * (limit > 0)


def test_caches_ask_the_process_type_that_serves_the_site_whatever_its_name():
    renderer = Renderer("lab", "cache")
    processes = {"api": {"listen": 8100, "route": "/api/"}, "site": {"listen": 9000}}
    variables = renderer._with({"app_processes": processes})
    servers = variables.template(trust_as_template("{{ cache_servers }}"))
    assert [server["name"] for server in servers] == ["app1", "app2", "app3"]
    assert {server["port"] for server in servers} == {9000}
