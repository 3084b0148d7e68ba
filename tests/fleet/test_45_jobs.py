"""Jobs and cron on the fleet: what was accepted is done once, and each tick comes once."""

import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fleet.support import ROOT, eventually, play

TAKEOVER = 15  # seconds within which another process must lead cron


@pytest.fixture(scope="module")
def release(fleet):
    return fleet.releases()[fleet.groups["app"][0]]


@pytest.fixture
def client(fleet):
    with fleet.session() as session:
        session.headers["Authorization"] = f"Bearer {fleet.login()['access_token']}"
        yield session


@pytest.fixture
def submit(fleet, client):
    """Ask for a job as a client does: with a key, and again while the answer is not 202."""

    def submit(kind, **given):
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        body = {"kind": kind, **given}

        def accepted():
            answer = client.post(f"{fleet.url}/jobs", json=body, headers=headers, timeout=10)
            assert answer.status_code in (202, 429, 502, 503, 504), answer.text
            return answer.status_code == 202 and answer.json()

        return eventually(accepted, 60)

    return submit


@pytest.fixture
def until(fleet, client):
    """Wait for a job to be in a state; return it."""

    def until(state, job, seconds=60):
        address = f"{fleet.url}/jobs/{job['id']}"
        return eventually(
            lambda: (now := client.get(address, timeout=10).json()).get("state") == state and now,
            seconds,
        )

    return until


@pytest.fixture
def another_release(fleet, release, tmp_path):
    """A copy of refapp with a line more; afterwards the fleet is as it was."""
    ignored = shutil.ignore_patterns("__pycache__", "tests", ".*")
    shutil.copytree(ROOT / "refapp", tmp_path / "refapp", ignore=ignored)
    with (tmp_path / "refapp/src/refapp/wsgi.py").open("a") as module:
        module.write("# a release for jobs to live through\n")
    yield str(tmp_path / "refapp")
    if set(fleet.releases().values()) != {release}:
        play("rollback.yml", "-e", f"release={release}")


def kill(fleet, host, process, signal="KILL"):
    """Send a signal to the main process of a process type on a host, whatever its release."""
    unit = f"refapp-{process}@*.service"
    fleet.ssh(host, f"systemctl kill --kill-whom=main --signal={signal} '{unit}'")


def test_a_job_is_done_on_some_host_and_has_a_result(fleet, submit, until):
    done = until("done", submit("sales-report"))
    assert done["host"] in fleet.groups["app"]
    assert done["result"]["items"] >= 100
    assert done["progress"] == 100


def test_a_call_into_c_is_stopped_and_its_job_is_dead(fleet, client, submit, until):
    args = {"how": "compute", "seconds": 60}
    job = submit("drill", args=args, time_limit=2, max_attempts=1)
    dead = until("dead", job)
    assert dead["error"] == "stopped after 2 s"
    listed = client.get(f"{fleet.url}/jobs?state=dead&kind=drill", timeout=10).json()["jobs"]
    assert job["id"] in {each["id"] for each in listed}
    answer = client.post(f"{fleet.url}/jobs/{job['id']}/retry", timeout=10)
    assert answer.status_code == 202
    eventually(lambda: until("dead", job)["finished_at"] > dead["finished_at"])


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.full)])
def test_each_effect_is_there_once_after_kills_and_a_deploy(
    fleet, submit, until, another_release, count
):
    item = f"jobs-{uuid.uuid4().hex[:12]}"

    def ask(amount):
        return submit("sales-import", args={"sales": [{"item": item, "amount": amount}]})

    with ThreadPoolExecutor(8) as pool:
        accepted = [pool.submit(ask, amount) for amount in range(1, count + 1)]
        for host in fleet.groups["app"]:
            kill(fleet, host, "worker")
            time.sleep(2)
        long = [submit("drill", args={"seconds": 25}, priority=100) for _ in fleet.groups["app"]]
        # Not killed meanwhile: a deploy rightly fails when the new release does not stay up.
        play("deploy.yml", "-e", f"release={another_release}")
        for host in fleet.groups["app"]:
            kill(fleet, host, "worker")
        ids = {future.result()["id"] for future in accepted}
    assert len(ids) == count
    query = f"SELECT count(*), count(DISTINCT amount) FROM sales WHERE item = '{item}';"
    wanted = [[str(count), str(count)]]
    eventually(lambda: fleet.sql(query) == wanted, 60 + count / 20)
    for job in long:
        assert until("done", job)["failures"] == 0, "stopping a worker cost an attempt"
    time.sleep(15)  # what was taken over would have its second effect by now
    assert fleet.sql(query) == wanted


def test_each_tick_comes_once_while_leaders_are_frozen_and_killed(fleet, client):
    def leader(after):
        def found():
            answer = client.get(f"{fleet.url}/cron", timeout=10)
            state = answer.json() if answer.status_code == 200 else {}
            return state.get("leader") and state["epoch"] > after and state

        return eventually(found, TAKEOVER)

    first = leader(0)
    began = fleet.sql("SELECT now();")[0][0]
    frozen = first["leader"]["host"]
    kill(fleet, frozen, "cron", "STOP")
    try:
        second = leader(first["epoch"])
        assert second["leader"]["host"] != frozen
    finally:
        kill(fleet, frozen, "cron", "CONT")
    time.sleep(5)  # for the old leader to do what it should not
    kill(fleet, second["leader"]["host"], "cron")
    leader(second["epoch"])
    time.sleep(25)
    # Their key forbids two rows for one tick; that none is missing and that each has its job:
    counts = fleet.sql(
        "SELECT count(*), count(*) FILTER (WHERE gap <> interval '10 s'), count(DISTINCT job_id), "
        "count(*) FILTER (WHERE NOT EXISTS (SELECT FROM jobs WHERE id = job_id)) "
        "FROM (SELECT *, tick - lag(tick) OVER (ORDER BY tick) AS gap FROM cron_ticks "
        f"WHERE name = 'pulse' AND tick >= '{began}') AS ticks;"
    )
    [[ticks, gaps, jobs, lost]] = counts
    assert int(ticks) >= 3
    assert (gaps, jobs, lost) == ("0", ticks, "0")
