"""Whom a balancer listens to, from the groups of an inventory."""

import pytest

from tests.unit.test_templates import Renderer, trust_as_template


def value(renderer, name, **more):
    return renderer._with(more).template(trust_as_template(f"{{{{ {name} }}}}"))


def test_neighbours_are_the_hosts_that_are_served_from_always_in_one_order():
    renderer = Renderer("lab", "keepalived")
    wanted = sorted(
        host["address"]
        for tier in ("app", "cache", "storage")
        for host in value(renderer, f"fleet_{tier}")
    )
    assert len(wanted) == 8
    assert value(renderer, "keepalived_neighbours") == wanted
    text = renderer.render("hear-neighbours.j2", {"keepalived_neighbours": wanted[::-1]})
    assert text.endswith(" ".join(wanted) + "\n")


def test_a_host_that_is_a_balancer_too_is_no_neighbour():
    """Of two hosts with every tier, one must go on without the other."""
    renderer = Renderer("single", "keepalived")
    assert value(renderer, "keepalived_neighbours") == []


def test_an_inventory_may_do_without():
    renderer = Renderer("lab", "keepalived")
    assert value(renderer, "keepalived_neighbours", fleet_neighbours=[]) == []


@pytest.mark.parametrize("neighbours", [[], ["192.0.2.7"]])
def test_the_check_stands_where_there_are_neighbours(neighbours):
    renderer = Renderer("lab", "keepalived")
    text = renderer.render("keepalived.conf.j2", {"keepalived_neighbours": neighbours})
    assert ("vrrp_script neighbours" in text) == bool(neighbours)
    assert text.split("track_script {")[1].split() == [
        "site",
        *["neighbours"][: len(neighbours)],
        "}",
        "}",
    ]
