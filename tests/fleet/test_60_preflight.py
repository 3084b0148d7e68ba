"""Wrong input: one line that says what to type, a failure, and nothing that has changed."""

import json
import re
from contextlib import contextmanager

import pytest
import yaml

from tests.fleet.changes import edit_hosts
from tests.fleet.support import ROOT, play

PRODUCTION = ROOT / "inventories/prod"


def refused(inventory, *arguments, playbook="site.yml"):
    """The only line of preflight, for an input that must change nothing."""
    done = play(playbook, *arguments, inventory=inventory, code=None)
    assert done.code != 0
    assert done.changed == {}, done.log
    assert done.tasks, done.log
    strangers = [task for task in done.tasks if not task.startswith("preflight : ")]
    assert strangers == [], "work began in spite of the mistake"
    lines = re.findall(r"^preflight: (.*)$", done.output, re.M)
    assert len(lines) == 1, lines
    return lines[0]


def edit(path, *replacements):
    text = path.read_text()
    for old, new in replacements:
        text, count = re.subn(old, new, text)
        assert count, f"{path.name} no longer has {old}"
    path.write_text(text)


def test_a_tier_without_hosts(inventory):
    edit_hosts(inventory, lambda tiers: tiers.pop("redis"))
    line = refused(inventory)
    assert "tier redis has no hosts" in line
    assert "hosts.yml" in line


def test_an_unknown_variable(inventory):
    with (inventory / "group_vars/all/fleet.yml").open("a") as settings:
        settings.write("\nbalancer_metod: round_robin\n")
    line = refused(inventory)
    assert "balancer_metod" in line
    assert "did you mean balancer_method?" in line


def test_a_renamed_variable(inventory):
    with (inventory / "group_vars/all/fleet.yml").open("a") as settings:
        settings.write("\nbalancer_algorithm: round_robin\n")
    renamed = json.dumps({"__preflight_renamed": {"balancer_algorithm": "balancer_method"}})
    line = refused(inventory, "-e", renamed)
    assert "balancer_algorithm" in line
    assert "was renamed: write balancer_method" in line


def test_a_missing_secret(inventory):
    edit(inventory / "group_vars/all/secrets.yml", (r"(?m)^secret_redis_password:.*\n", ""))
    line = refused(inventory)
    assert "secret_redis_password is missing" in line
    assert "openssl rand" in line


@pytest.mark.parametrize("value", ["CHANGE_ME", "password", "short", "''"])
def test_an_example_for_a_secret(inventory, value):
    edit(
        inventory / "group_vars/all/secrets.yml",
        (r"(?m)^secret_db_password:.*$", f"secret_db_password: {value}"),
    )
    line = refused(inventory)
    assert "secret_db_password" in line
    assert "openssl rand" in line


def test_an_address_that_does_not_answer(inventory):
    edit(inventory / "hosts.yml", (r"10\.87\.0\.32", "10.87.0.99"))
    line = refused(inventory)
    assert "app2 can't be reached" in line
    assert "10.87.0.99" in line


def test_two_tiers_that_share_a_port(inventory):
    edit(inventory / "group_vars/all/app.yml", (r"listen: 8000", "listen: 8080"))
    edit_hosts(inventory, lambda tiers: tiers["app"]["hosts"].update(storage1={}))
    line = refused(inventory)
    assert "port 8080 on storage1" in line
    assert "listen" in line


def test_a_process_type_that_would_move_to_another_port(inventory):
    """Not preflight's: a port is free to choose until something listens there."""
    edit(inventory / "group_vars/all/app.yml", (r"listen: 8000", "listen: 8009"))
    done = play("site.yml", inventory=inventory, code=None)
    assert done.code != 0
    assert done.changed == {}, done.log
    said = " ".join(done.output.split())
    assert "web listens on 8000" in said
    assert "add -e accept=downtime" in said


def test_a_full_disk(inventory):
    # The threshold moves, not the disk: these hosts share it with the machine.
    line = refused(inventory, "-e", "preflight_free_mb=900000000", "-l", "db1")
    assert re.search(r"db1 has \d+ MB .* free on /", line)


@contextmanager
def changed(fleet, host, command, undo):
    try:
        fleet.ssh(host, command)
        yield
    finally:
        fleet.ssh(host, undo)


def test_an_unsupported_system(fleet, inventory):
    host = fleet.groups["cache"][0]
    with changed(
        fleet, host,
        "rm /etc/os-release && printf 'ID=ubuntu\\nVERSION_ID=\"24.04\"\\n' > /etc/os-release",
        "ln -sf ../usr/lib/os-release /etc/os-release",
    ):  # fmt: skip
        line = refused(inventory)
    assert f"{host} runs ubuntu 24.04" in line
    assert "install Debian 13" in line


def test_a_clock_out_of_step(fleet, inventory):
    host = fleet.groups["redis"][0]
    wrapper = "/usr/local/sbin/date"  # containers have their machine's clock
    with changed(
        fleet, host,
        f"printf '#!/bin/sh\\nexec /usr/bin/date -d \"1 hour\" \"$@\"\\n' > {wrapper} && "
        f"chmod +x {wrapper}",
        f"rm -f {wrapper}",
    ):  # fmt: skip
        line = refused(inventory)
    assert re.search(rf"clock of {host} is (3599|3600|3601) s ahead of", line)


def test_a_deploy_is_checked_too(inventory):
    edit_hosts(inventory, lambda tiers: tiers.pop("redis"))
    assert "tier redis" in refused(inventory, playbook="deploy.yml")


def test_a_part_of_the_app_hosts(fleet):
    first, *others = fleet.groups["app"]
    done = play("site.yml", "--limit", ",".join(others), code=None)
    assert done.code != 0
    assert done.changed == {}, done.log
    assert f"--limit leaves out {first}: name all app hosts" in " ".join(done.output.split())
    assert done.tasks[-1] == "Stop where some are left out"


def test_a_host_that_can_not_be_prepared_ends_it_before_any_tier_changes(fleet):
    host = fleet.groups["redis"][0]
    tool = "/usr/bin/dpkg-query"  # which says what is installed
    with changed(fleet, host, f"mv {tool} {tool}.away", f"mv {tool}.away {tool}"):
        done = play("site.yml", code=None)
    assert done.code != 0
    assert f"{host} could not be prepared" in " ".join(done.output.split())
    assert done.tasks[-1] == "Refuse to go on without it"
    assert fleet.get("/whoami").status_code == 200


def test_the_production_template_says_what_to_fill_in():
    done = play("site.yml", inventory=PRODUCTION, code=None)
    assert done.code != 0
    assert done.changed == {}
    lines = re.findall(r"^preflight: (.*)$", done.output, re.M)
    assert any("fleet_names" in line for line in lines)
    secrets = yaml.safe_load((PRODUCTION / "group_vars/all/secrets.yml").read_text())
    for name in secrets:
        assert any(line.startswith(f"{name} ") for line in lines), name


@pytest.mark.parametrize("name", ["lab", "prod", "single"])
def test_inventories_are_read_as_they_stand(name):
    inventory = PRODUCTION.parent / name
    play("site.yml", "--syntax-check", inventory=inventory)
    listed = play("site.yml", "--list-hosts", inventory=inventory).output
    assert re.search(rf"^\s+{'one' if name == 'single' else 'app1'}$", listed, re.M)
