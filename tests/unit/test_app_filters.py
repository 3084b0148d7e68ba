"""Process types become units, and settings reach a process as they were written."""

import importlib.util
import re
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from tests.unit.test_templates import Renderer

PLUGIN = Path(__file__).parents[2] / "plugins/filter/app.py"
SPEC = importlib.util.spec_from_file_location("app_filters", PLUGIN)
filters = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(filters)


def unit(**given):
    return filters.app_units({"web": {"command": "serve", **given}}, "shop")[0]


def test_a_listening_type_hands_over_and_gets_a_worker_a_core():
    found = unit(listen=8000, probe="/readyz")
    assert (found["unit"], found["handover"], found["workers"]) == ("shop-web", "socket", "auto")


def test_a_type_that_does_not_listen_restarts_and_is_not_probed():
    found = unit(probe="/readyz")
    assert (found["handover"], found["probe"], found["workers"]) == ("restart", None, None)


def test_instances_are_units_of_their_own():
    found = filters.app_units({"worker": {"command": "work", "instances": 3}}, "shop")
    assert [each["unit"] for each in found] == ["shop-worker", "shop-worker-2", "shop-worker-3"]


def test_a_type_may_not_take_all_memory_of_its_host():
    assert unit()["memory_max"] == "75%"
    assert unit(memory_max="2G")["memory_max"] == "2G"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"command": ""}, "set its command"),
        ({"listne": 8000}, "unknown key listne"),
        ({"handover": "socket"}, "needs listen"),
        ({"listen": 8000, "instances": 2}, "uses workers"),
    ],
)
def test_a_mistake_is_named(given, said):
    with pytest.raises(AnsibleFilterError, match=said):
        unit(**given)


@pytest.mark.parametrize("value", ["plain", 'two "quotes"', "$HOME `id` \\ back", '{"a": "b"}', ""])
def test_a_value_is_read_back_as_it_was(value):
    line = filters.environment_file({"KEY": value})
    quoted = re.fullmatch(r'KEY="((?:[^"\\$`]|\\["\\$`])*)"\n', line)[1]
    # systemd takes the backslash off these four and leaves everything else alone.
    assert re.sub(r'\\(["\\$`])', r"\1", quoted) == value


def test_a_name_that_is_no_variable_is_refused():
    with pytest.raises(AnsibleFilterError, match="not the name"):
        filters.environment_file({"MY KEY": "x"})


def test_of_a_type_that_is_gone_the_sockets_close_first():
    """One that is open starts its service again, which would then run without a unit."""
    renderer = Renderer("lab", "app")
    task = renderer._yaml(renderer.role / "tasks/retire.yml")[1]
    gone = [f"refapp-{letter}" for letter in "abcdefgh"]
    names = [f"{unit}{end}" for unit in ["refapp-web", *gone] for end in ("@.service", ".socket")]
    found = {"__app_found": {"files": [{"path": f"/etc/systemd/system/{n}"} for n in names]}}
    order = renderer._with({**task["vars"], **found}).template(task["loop"])
    assert len(order) == 2 * len(gone)
    assert all(order.index(f"{u}.socket") < order.index(f"{u}@.service") for u in gone)
