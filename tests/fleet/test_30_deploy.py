"""Changes of the app under load: not one request fails, and what goes wrong is taken back."""

import shutil

import pytest

from tests.fleet.support import ROOT, eventually, play

BROKEN = '''

def refuse(environ, start_response):
    """Never be ready."""
    if environ["PATH_INFO"] == "/readyz":
        start_response("503 Service Unavailable", [("Content-Type", "application/json")])
        return [b'{"status": "not ready", "not_ready": ["broken-on-purpose"]}']
    return answer(environ, start_response)


answer, app.wsgi_app = app.wsgi_app, refuse
'''


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a function that makes a copy of refapp with a line more."""

    def copy(text):
        target = tmp_path_factory.mktemp("release") / "refapp"
        ignored = shutil.ignore_patterns("__pycache__", "tests", ".*")
        shutil.copytree(ROOT / "refapp", target, ignore=ignored)
        with (target / "src/refapp/wsgi.py").open("a") as module:
            module.write(text)
        return str(target)

    return copy


@pytest.fixture(scope="module")
def first(fleet):
    """The release that was live before this module."""
    releases = set(fleet.releases().values())
    assert len(releases) == 1, "the fleet is mixed before the first test"
    return releases.pop()


def one_release(fleet):
    """The release of every host: what it calls current, and what answers."""
    current = set(fleet.releases().values())
    hosts, answering = fleet.answering(30)
    assert current == answering
    assert len(current) == 1, f"the fleet is mixed: {fleet.releases()}"
    assert hosts == set(fleet.groups["app"])
    return current.pop()


def test_a_deploy_fails_no_request(fleet, first, source):
    with fleet.load() as load:
        play("deploy.yml", "-e", f"release={source('# another release')}", "-e", "prove=true")
    new = one_release(fleet)
    assert new != first
    # Both served, one after the other: the load was there during the switch.
    assert set(load.report["releases"]) == {first, new}
    assert load.report["hosts"].keys() == set(fleet.groups["app"])
    assert load.report["longest_gap"] < 3, load.summary


def test_the_same_bytes_have_the_same_id(fleet, source):
    before = one_release(fleet)
    play("deploy.yml", "-e", f"release={source('# another release')}")
    assert one_release(fleet) == before


def test_a_rollback_fails_no_request(fleet, first):
    with fleet.load() as load:
        play("rollback.yml")
    assert one_release(fleet) == first
    assert len(load.report["releases"]) == 2


@pytest.mark.full
def test_a_rollback_goes_to_a_named_release(fleet, first, source):
    play("deploy.yml", "-e", f"release={source('# another release')}")
    assert one_release(fleet) != first
    with fleet.load():
        play("rollback.yml", "-e", f"release={first}")
    assert one_release(fleet) == first


def test_a_rollback_to_an_unknown_release_changes_nothing(fleet, first):
    missing = play("rollback.yml", "-e", "release=000000000000", code=None)
    assert missing.code != 0
    assert "does not have release 000000000000" in missing.output
    assert one_release(fleet) == first


def test_a_release_that_is_not_ready_is_taken_back(fleet, first, source):
    with fleet.load() as load:
        done = play("deploy.yml", "-e", f"release={source(BROKEN)}",
                    "-e", "app_ready_timeout=25", code=None)  # fmt: skip
    assert done.code != 0
    assert "broken-on-purpose" in done.output, "the reason is not in the output"
    assert one_release(fleet) == first
    assert set(load.report["releases"]) == {first}, "a broken release took a request"
    units = fleet.ssh(fleet.groups["app"][0], "systemctl --failed --plain --no-legend || true")
    assert "refapp" not in units


@pytest.mark.full
def test_a_release_that_cannot_start_is_taken_back(fleet, first, source):
    with fleet.load() as load:
        done = play("deploy.yml", "-e", f"release={source('import no_such_module_at_all')}",
                    code=None)  # fmt: skip
    assert done.code != 0
    assert "no_such_module_at_all" in done.output, "the journal is not in the output"
    assert one_release(fleet) == first
    assert set(load.report["releases"]) == {first}


def test_a_source_that_is_not_there_changes_nothing(fleet, first):
    done = play("deploy.yml", "-e", "release=/nowhere/at/all", code=None)
    assert done.code != 0
    assert "/nowhere/at/all" in done.output
    assert one_release(fleet) == first


def test_a_rolling_restart_fails_no_request(fleet, first):
    def processes():
        return {
            host: fleet.ssh(host, f"systemctl show -p MainPID --value 'refapp-web@{first}'")
            for host in fleet.groups["app"]
        }

    before = processes()
    with fleet.load() as load:
        play("restart.yml")
    after = processes()
    assert all(after[host] != before[host] for host in before), "not restarted"
    assert one_release(fleet) == first
    assert load.report["hosts"].keys() == set(fleet.groups["app"])
    for host in fleet.groups["app"]:
        drained = fleet.ssh(host, "nft list tables")
        assert "evenkeel_drain" not in drained, f"{host} is still drained"


def test_old_releases_are_removed(fleet):
    for host in fleet.groups["app"]:
        assert 2 <= len(fleet.ssh(host, "ls /srv/refapp/releases").split()) <= 5
        running = fleet.ssh(host, "systemctl list-units --plain --no-legend 'refapp-web@*'")
        assert len(running.splitlines()) == 1, "an old release still runs"


def test_the_fleet_is_whole(fleet):
    eventually(lambda: fleet.get("/readyz").json()["status"] == "ready", 10)
