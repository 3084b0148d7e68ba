"""The checks of preflight: each mistake gives one line that says what to type."""

import subprocess
from pathlib import Path

import pytest
import yaml

from plugins.action.preflight_host import clock_offset, facts, host_problems, probe
from plugins.action.preflight_inventory import (
    Fleet,
    Variable,
    address_problems,
    choice_problems,
    example_problems,
    extra_problems,
    file_problems,
    names_read,
    port_problems,
    route_problems,
    secret_problems,
    tier_problems,
    variable_problems,
)

ROOT = Path(__file__).parents[2]
LIMITS = {"releases": ["13"], "free_mb": 1024, "free_percent": 5, "clock": 2}
SOUND = {"os": ["debian 13"], "uid": ["0"], "python": ["yes"], "disk": ["x 100 20 9000 1% /"]}


def only(problems):
    (line,) = problems
    return line


def test_a_tier_without_hosts():
    line = only(tier_problems(Fleet(groups={"app": ["app1"], "db": []}), ["app", "db"]))
    assert line.startswith("tier db has no hosts: add one under db: in hosts.yml")


def test_a_misspelled_group():
    fleet = Fleet(groups={"storag": ["s1"]})
    assert any("did you mean storage?" in line for line in tier_problems(fleet, ["storage"]))


def test_addresses_that_are_none_or_shared():
    addresses = {"a": "10.0.0.1", "b": "10.0.0.1", "c": "db.internal", "d": None, "e": "fd00::5"}
    fleet = Fleet(addresses=addresses)
    lines = list(address_problems(fleet))
    assert any("a and b have one address" in line for line in lines)
    assert any("db.internal, is not an IP address" in line for line in lines)
    assert any("d has no address" in line for line in lines)
    assert any("e, fd00::5, is IPv6" in line and "private_address" in line for line in lines)
    assert len(lines) == 4


def test_variables_that_nothing_reads():
    fleet = Fleet(
        variables=[Variable("redis_maxmem", 1, "f.yml"), Variable("old_name", 1, "f.yml")],
        roles={"redis": {"redis_maxmemory"}},
        renamed={"old_name": "new_name"},
    )
    lines = list(variable_problems(fleet))
    assert "unknown variable redis_maxmem in f.yml: did you mean redis_maxmemory?" in lines
    assert "old_name in f.yml was renamed: write new_name" in lines


def test_a_variable_that_nearly_has_a_known_name_whatever_it_begins_with():
    fleet = Fleet(
        variables=[
            Variable("fleet_virtul_ip", 1, "f.yml"),
            Variable("adress", 1, "f.yml"),
            Variable("strict_names", 1, "f.yml"),
            Variable("private_adress", 1, "f.yml"),
            Variable("lab_disk", {}, "f.yml"),
        ],
        roles={"balancer": {"balancer_strict_names"}},
        words={"fleet_virtual_ip", "private_address", "include_role"},
        derived={"address": "wiring.yml"},
    )
    assert [line.split("f.yml: ")[1] for line in variable_problems(fleet)] == [
        "did you mean fleet_virtual_ip?",
        "remove it; if it means address, wiring.yml sets that",
        "did you mean balancer_strict_names?",
        "did you mean private_address?",
        "did you mean lab_disks?",
    ]


def test_variables_of_the_operators_own_are_not_our_business():
    """Helpers of other values, what lab/ and Ansible read, and names that resemble nothing."""
    names = ["redis_mb", "lab_disks", "ansible_user", "team", "site_region", "names", "backup_host"]
    fleet = Fleet(
        variables=[Variable(name, 1, "f.yml") for name in names],
        roles={"redis": {"redis_maxmemory"}, "balancer": {"balancer_names"}},
        words={"redis_mb", "fleet_names", "pgbackrest_host"},
    )
    assert list(variable_problems(fleet)) == []


def test_what_is_misspelled_on_the_command_line():
    """`-e relase=…` would deploy the working tree."""
    fleet = Fleet(
        options={"release"},
        derived={"fleet_lb": "wiring.yml"},
        roles={"app": {"app_ready_timeout"}},
        variables=[Variable("shop_colour", "red", "f.yml")],
        extras=["release", "fleet_lb", "app_ready_timeout", "shop_colour", "ansible_user"],
    )
    assert not list(extra_problems(fleet))
    fleet.extras = ["relase"]
    assert only(extra_problems(fleet)) == "unknown variable relase after -e: did you mean release?"
    fleet.extras = ["ticket"]
    assert only(extra_problems(fleet)).endswith("after -e: leave it out, nothing reads it")


def test_only_what_playbooks_read_is_an_option():
    """Other words of theirs are not: `-e releases=…` would deploy the working tree, too."""
    files = (ROOT / "playbooks").glob("**/*.yml")
    options = {name for path in files for name in names_read(yaml.safe_load(path.read_text()))}
    assert {"release", "host", "fault", "to", "overwrite", "accept", "unlock", "prove"} <= options
    assert not {"releases", "hosts", "tiers", "tag", "name", "state", "when"} & options


def test_what_a_template_reads_is_found():
    task = {
        "name": "Say {{ greeting }}",
        "when": ["wanted | bool", "it is defined"],
        "loop": "{% for each in many %}{{ each }}{% endfor %}",
        "vars": {"broken": "{{ oops", "said": "no expression"},
    }
    assert set(names_read(task)) == {"greeting", "wanted", "it", "many", "each"}


@pytest.mark.parametrize("value", ["own-ca", ["files", "own-ca"]])
def test_a_value_that_a_role_knows_nothing_of(value):
    fleet = Fleet(
        variables=[Variable("mode", value, "f.yml"), Variable("other", "{{ mode }}", "f.yml")],
        choices={"mode": ["own_ca", "files"], "other": ["a"]},
    )
    assert only(choice_problems(fleet)) == "mode in f.yml is own-ca: write one of own_ca, files"


def test_a_variable_that_the_playbooks_override():
    fleet = Fleet(variables=[Variable("fleet_db", 1, "f.yml")], derived={"fleet_db": "wiring.yml"})
    assert "has no effect" in only(variable_problems(fleet))


def test_secrets_never_show_their_value():
    fleet = Fleet(
        variables=[
            Variable("secret_a", "CHANGE_ME", "s.yml"),
            Variable("secret_b", "sh0rt", "s.yml"),
            Variable("secret_c", "", "s.yml"),
            Variable("secret_d", "0123456789abcdef0123", "s.yml"),
        ],
        words={"secret_e"},
    )
    lines = list(secret_problems(fleet))
    assert [line.split()[0] for line in lines] == ["secret_e", "secret_a", "secret_b", "secret_c"]
    assert not any("sh0rt" in line for line in lines)


def test_names_left_from_the_template():
    fleet = Fleet(variables=[Variable("fleet_names", ["www.example.com"], "f.yml")])
    assert "still has www.example.com" in only(example_problems(fleet))


def test_a_file_that_is_not_there(tmp_path):
    there, missing = tmp_path / "site.pem", tmp_path / "site.key"
    there.touch()
    fleet = Fleet(
        variables=[Variable("a_file", "{{ x }}", "f.yml"), Variable("b_file", "{{ x }}", "f.yml")],
        files={"a_file": str(there), "b_file": str(missing)},
    )
    line = only(file_problems(fleet))
    assert line.startswith(f"b_file in f.yml: there is no file {missing}: put it there")


def test_two_tiers_that_share_a_port():
    table = [
        {"name": "a", "tier": "app", "ports": [80]},
        {"name": "b", "tier": "lb", "ports": [80]},
    ]
    fleet = Fleet(groups={"app": ["one"], "lb": ["one", "two"]})
    line = only(port_problems(fleet, table))
    assert line.startswith("port 80 on one is wanted by a (tier app) and by b (tier lb)")


def test_process_types_that_take_each_others_requests():
    site, worker = {"listen": 8000}, {"command": "work"}
    assert not list(route_problems(Fleet(processes={"site": site, "worker": worker})))
    fleet = Fleet(processes={"site": site, "admin": {"listen": 8300}})
    assert only(route_problems(fleet)).startswith("site and admin of app_processes have one route")
    api = {"listen": 8000, "route": "/api/"}
    fleet = Fleet(groups={"lb": ["lb1"]}, processes={"api": api, "worker": worker})
    assert "has the route /" in only(route_problems(fleet))


def test_a_sound_host():
    assert list(host_problems("h", "ssh h", SOUND, 0.1, LIMITS)) == []


def test_what_is_wrong_with_a_host():
    found = {**SOUND, "os": ["ubuntu 24.04"], "uid": ["1000"], "disk": ["x 100 99 50 99% /"]}
    found.pop("python")
    lines = list(host_problems("h", "ssh h", found, 3600, LIMITS))
    for words in ("runs ubuntu 24.04", "no root", "no Python", "50 MB", "3600 s ahead of"):
        assert any(words in line for line in lines), words


def test_every_disk_without_room_is_named_in_one_line():
    found = {
        "disk": [
            "a 9999 1 5000 1% /",
            "b 3000 2750 250 92% /var/lib/postgresql",
            "e 3000 2600 400 87% /var/lib/redis",
            "f 3000 2600 400 87% /srv",
            "g 500 1 499 1% /var/lib/etcd",
            "a 9999 1 5000 1% /",
            "c 200 20 170 10% /var/log/nginx",
            "d 200 199 1 99% /var/log/journal",
        ]
    }
    line = only(host_problems("h", "ssh h", {**SOUND, **found}, 0, LIMITS))
    assert line.startswith(
        "h has 250 MB (8 %) free on /var/lib/postgresql and 400 MB (13 %) free on /srv "
        "and 499 MB (100 %) free on /var/lib/etcd and 1 MB (0 %) free on /var/log/journal, "
    )
    assert (
        "ssh h sudo du -xm --max-depth=3 /var/lib/postgresql /srv /var/lib/etcd /var/log/journal"
        in line
    )


def test_the_probe_looks_at_folders_that_are_there(tmp_path):
    for name in ("d1", "d 2"):
        (tmp_path / name).mkdir()
    script = probe(["/", f"{tmp_path}/*", f"{tmp_path}/none", f"{tmp_path}/none/*"])
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert len(facts(done.stdout)["disk"]) == 3
    assert done.stderr == ""


def test_a_clock_is_allowed_the_time_of_the_question():
    assert clock_offset(10, 12, 11) == 0
    assert clock_offset(10, 12, 15) == 3
    assert clock_offset(10, 12, 4) == -6


def test_noise_between_facts_does_no_harm():
    assert facts("motd!\nos=debian 13\nuid=0\n") == {"os": ["debian 13"], "uid": ["0"]}
