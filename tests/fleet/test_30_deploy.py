"""Changes of the app under load: nothing fails or is lost, and what goes wrong is taken back.

One deploy and one rollback serve several tests, because they take minutes.
"""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from plugins.filter.lock import lock_process
from tests.fleet import talk
from tests.fleet.support import Fleet, eventually, play
from tests.fleet.work import Imports, Jobs, kill, now, prove_ticks

REFUSING = '''

def refuse(environ, start_response):
    """{why}"""
    if environ["PATH_INFO"] == "{path}":
        start_response("{status}", [("Content-Type", "application/json")])
        return [b'{body}']
    return answer(environ, start_response)


answer, app.wsgi_app = app.wsgi_app, refuse
'''
BROKEN = REFUSING.format(
    why="Never be ready.",
    path="/readyz",
    status="503 Service Unavailable",
    body='{"status": "not ready", "not_ready": ["broken-on-purpose"]}',
)
FAILING = REFUSING.format(
    why="Be ready, and fail where people go.",
    path="/whoami",
    status="500 Internal Server Error",
    body='{"status": 500}',
)


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


def lock(fleet):
    """What the lock of a deploy says, or nothing when nobody has it."""
    ask = "systemctl show --value --property=Description refapp-deploy.service"
    said = fleet.ssh(fleet.groups["app"][0], ask)
    return said if "since" in said else ""


def hold(fleet, process):
    """Take the lock as a playbook does that runs as this process."""
    fleet.ssh(
        fleet.groups["app"][0],
        "systemd-run --quiet --collect --unit=refapp-deploy.service --property=RuntimeMaxSec=600 "
        f"'--description=ann at laptop, since 2026-11-21 12:00 UTC [{process}]' sleep infinity",
    )


@pytest.fixture(scope="module", params=[
    pytest.param((60, 1000), id="60 clients and 1000 jobs"),
    pytest.param((200, 10_000), id="200 clients and 10000 jobs", marks=pytest.mark.full),
])  # fmt: skip
def changed(fleet, first, source, script, request):
    """What was seen during a deploy and the rollback after it, with all at work that there is."""
    people, least = request.param
    jobs = Jobs(fleet, fleet.authorized())
    imports, seen = Imports(jobs), SimpleNamespace(people=people, least=least, began=now(fleet))
    with talk.talking(fleet, script, people, every_ms=10 * people) as seen.heard:
        with imports.asked_for(least):
            for host in fleet.groups["app"]:
                kill(fleet, host, "worker")
            seen.long = [
                jobs.submit("drill", args={"seconds": 25}, priority=100)
                for _ in fleet.groups["app"]
            ]
            # Not killed meanwhile: a deploy rightly fails when the new release does not stay up.
            begin = now(fleet)
            with fleet.load(prove=False) as seen.deploy:
                release = source("# another release")
                play("deploy.yml", "-e", f"release={release}", "-e", "prove=true")
            seen.during = begin, now(fleet)
            seen.new = one_release(fleet)
            for host in fleet.groups["app"]:
                kill(fleet, host, "worker")
        seen.again = play("deploy.yml", "-e", f"release={source('# another release')}")
        eventually(imports.all_done_once, 60 + least / 20)
        with fleet.load(prove=False) as seen.rollback:
            play("rollback.yml")
        seen.old = one_release(fleet)
    seen.jobs, seen.imports = jobs, imports
    return seen


def test_a_deploy_fails_no_request(fleet, first, changed):
    load = changed.deploy
    Fleet.prove(load)
    assert changed.new != first
    # Both served, one after the other: the load was there during the switch.
    assert set(load.report["releases"]) == {first, changed.new}
    assert load.report["hosts"].keys() == set(fleet.groups["app"])
    assert load.report["longest_gap"] < 3, load.summary


def test_a_rollback_fails_no_request(first, changed):
    Fleet.prove(changed.rollback)
    assert changed.old == first
    assert set(changed.rollback.report["releases"]) == {first, changed.new}


def test_no_message_is_lost_or_doubled(changed):
    people, heard = changed.people, changed.heard
    talk.prove(heard, people)
    assert heard["moved"] == people, "a client stayed on a release that is gone"
    assert heard["farewells"] >= 2 * people


def test_each_job_is_done_once_after_kills_and_a_deploy(fleet, changed):
    imports = changed.imports
    assert len(imports.ids) >= changed.least
    # What was taken over would have had its second effect during the rollback.
    assert imports.all_done_once()
    for job in changed.long:
        done = changed.jobs.until("done", job)
        assert done["failures"] == 0, "stopping a worker cost an attempt"
    done, hosts, pause = imports.done_between(*changed.during)
    print(
        f"{len(imports.ids)} jobs, {done} of them done during the deploy, longest pause {pause} s"
    )
    assert done >= 200, "the queue was idle during the deploy"
    assert hosts == len(fleet.groups["app"])
    assert pause < 10


def test_each_tick_comes_once_through_a_deploy(fleet, changed):
    prove_ticks(fleet, changed.began, 5)


def test_the_same_bytes_have_the_same_id(changed):
    assert f"Release {changed.new} is live on every host already" in changed.again.output


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


def test_a_release_that_is_not_ready_is_taken_back_and_no_other_deploy_crosses_it(
    fleet, first, source
):
    release = f"release={source(BROKEN)}"

    def cross():
        """Deploy beside the other one, as soon as that has the lock."""
        eventually(lambda: lock(fleet), 300, pause=1)
        return play("deploy.yml", "-e", release, code=None)

    with fleet.load() as load, ThreadPoolExecutor(1) as aside:
        crossing = aside.submit(cross)
        # Time enough for the second one to come to the lock.
        done = play("deploy.yml", "-e", release, "-e", "app_ready_timeout=40", code=None)
    refused = crossing.result()
    assert refused.code != 0
    said = " ".join(refused.output.split())  # Ansible breaks lines
    assert "is under way (" in said, refused.tail()
    assert "or add -e unlock=true if it is not" in said
    assert not any("Ship |" in task for task in refused.tasks)
    assert not lock(fleet), "a deploy that failed keeps others out"
    journal = fleet.ssh(fleet.groups["app"][-1], "journalctl -q -o cat -t refapp-deploy -n 1")
    assert journal.endswith("did not go live")
    assert done.code != 0
    assert "broken-on-purpose" in done.output, "the reason is not in the output"
    assert one_release(fleet) == first
    assert set(load.report["releases"]) == {first}, "a broken release took a request"
    units = fleet.ssh(fleet.groups["app"][0], "systemctl --failed --plain --no-legend || true")
    assert "refapp" not in units


def test_a_lock_of_another_machine_is_taken_by_words_only(fleet, first):
    hold(fleet, "0123456789ab 1 1")
    refused = play("rollback.yml", "-e", f"release={first}", code=None)
    assert refused.code != 0
    said = " ".join(refused.output.split())
    assert "is under way (ann at laptop, since 2026-11-21 12:00 UTC): wait" in said
    assert lock(fleet)
    play("rollback.yml", "-e", f"release={first}", "-e", "unlock=true")
    assert not lock(fleet)


def test_a_release_whose_requests_fail_is_taken_back(fleet, first, source):
    with subprocess.Popen(["sleep", "60"]) as playbook:
        hold(fleet, lock_process(playbook.pid))
        playbook.kill()  # a deploy from here that ended before it switched keeps nobody out
    with fleet.load(prove=False) as load:
        done = play("deploy.yml", "-e", f"release={source(FAILING)}",
                    "-e", "deploy_bake=5", code=None)  # fmt: skip
    assert done.code != 0
    host = fleet.groups["app"][0]
    said = " ".join(done.output.split())  # Ansible breaks lines
    assert re.search(rf"{host}: \d+ of \d+ requests failed since the switch", said), done.tail()
    assert load.report["failed"] > 0, "nobody asked for what fails"
    assert one_release(fleet) == first  # whose answers it reads


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


def test_a_rolling_restart_fails_no_request_and_loses_no_message(fleet, first, script):
    def processes():
        return {
            host: fleet.ssh(host, f"systemctl show -p MainPID --value 'refapp-web@{first}'")
            for host in fleet.groups["app"]
        }

    host = fleet.groups["app"][-1]
    other = next(n for n in fleet.ssh(host, "ls /srv/refapp/releases").split() if n != first)
    fleet.ssh(host, f"systemctl enable --quiet --now refapp-worker@{other}.service")
    status = " ".join(play("status.yml", code=2).output.split())
    assert f"refapp-worker@{other}.service runs, too: run site.yml" in status
    before = processes()
    with talk.talking(fleet, script, 60) as heard, fleet.load() as load:
        play("restart.yml")
    after = processes()
    talk.prove(heard, 60)
    assert all(after[host] != before[host] for host in before), "not restarted"
    assert one_release(fleet) == first
    assert load.report["hosts"].keys() == set(fleet.groups["app"])
    units = "systemctl list-units --plain --no-legend --state=active 'refapp-*@*.service'"
    assert f"@{other}" not in fleet.ssh(host, units), "a release beside the live one runs on"
    assert f"@{other}" not in fleet.ssh(host, "ls /etc/systemd/system/refapp.target.wants")
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
