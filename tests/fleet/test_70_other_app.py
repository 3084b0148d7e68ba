"""An application from the package index, on a copy of the lab's inventory, by variables alone."""

import re
import shutil

import pytest
import yaml

from plugins.load import running
from tests.fleet.changes import copy_of_lab
from tests.fleet.support import Fleet, lab, play

NETWORK = "10.87.32"
HOSTS = {
    "lb": {"web1": f"{NETWORK}.11"},
    "app": {"bin1": f"{NETWORK}.31", "bin2": f"{NETWORK}.32"},
}
APP = {
    "app_name": "httpbin",
    "app_package": ["httpbin==0.10.2", "gunicorn"],
    "app_processes": {
        "web": {
            "command": "gunicorn httpbin:app",
            "listen": 8000,
            "workers": 2,
            "probe": "/status/200",
        }
    },
}


@pytest.fixture(scope="module")
def other(fleet):
    """Another fleet with fewer tiers, beside the lab."""
    inventory = copy_of_lab("other")
    children = {
        tier: {"hosts": {name: {"ansible_host": address} for name, address in hosts.items()}}
        for tier, hosts in HOSTS.items()
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": children}}))
    (inventory / "group_vars/all/app.yml").write_text(yaml.safe_dump(APP))
    settings = inventory / "group_vars/all/fleet.yml"
    text = re.sub(r"10\.87\.0\.", f"{NETWORK}.", settings.read_text())
    settings.write_text(f"{text}\npreflight_tiers: [lb, app]\n")
    try:
        lab("up", "-i", str(inventory), "--name", "other")
        check = play("site.yml", "--check", inventory=inventory)
        assert set(HOSTS["lb"]) | set(HOSTS["app"]) <= check.recap.keys(), "fresh hosts"
        play("site.yml", inventory=inventory)
        yield Fleet.read(inventory, f"https://{NETWORK}.100", fleet.ca)
    finally:
        lab("down", "--name", "other")
        shutil.rmtree(inventory)


def test_it_answers_through_the_balancer(other):
    answer = other.get("/get?a=1")
    assert answer.status_code == 200
    assert answer.json()["args"] == {"a": "1"}
    assert answer.json()["url"] == f"{other.url}/get?a=1", "the app does not know its own address"
    assert other.get("/status/418").status_code == 418
    assert other.get("/anything", headers={"Accept-Encoding": "gzip"}).status_code == 200
    with other.session() as session:
        posted = session.post(f"{other.url}/post", json={"b": 2}, timeout=10)
    assert posted.json()["json"] == {"b": 2}


def test_it_runs_in_production_form_on_every_host(other):
    for host in other.groups["app"]:
        unit = other.ssh(host, "systemctl list-units --plain --no-legend 'httpbin-web@*.service'")
        assert " active running " in unit
        name = unit.split()[0]
        shown = other.ssh(
            host, f"systemctl show -p User,ProtectSystem,NoNewPrivileges,Restart {name}"
        )
        assert set(shown.splitlines()) == {
            "User=httpbin", "ProtectSystem=strict", "NoNewPrivileges=yes", "Restart=always",
        }  # fmt: skip
        accepted = other.ssh(host, "journalctl -q -u 'httpbin-web@*' | wc -l")
        assert int(accepted) > 0


def test_a_restart_of_it_fails_no_request(other):
    with running(other.url, gets=["/get", "/uuid"], ca=other.ca, rate=40, clients=20) as load:
        play("restart.yml", inventory=other.inventory)
    assert load.report["failed"] == 0, load.summary
    assert load.report["requests"] > 100


@pytest.mark.full
def test_a_second_run_changes_nothing(other):
    done = play("site.yml", inventory=other.inventory)
    assert done.changed == {}, done.log
    assert sorted(set(done.recap) - {"localhost"}) == other.hosts
