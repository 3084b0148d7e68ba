"""Process types become units, and settings reach a process as they were written."""

import importlib.util
import re
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

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
