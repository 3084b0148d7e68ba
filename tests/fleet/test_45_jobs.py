"""Jobs and cron on the fleet: what was accepted is done once, and each tick comes once."""

import itertools
import re
import shutil
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

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


@pytest.fixture
def busy(fleet, submit, until):
    """Give every worker something to do for some seconds, so that what comes next must wait."""
    slots = 2 * len(fleet.groups["app"])
    # One by one: a pulse may hold a slot for a moment.
    jobs = [submit("drill", args={"seconds": 6}, priority=100) for _ in range(slots)]
    for job in jobs:
        until("running", job, 5)
    return jobs


def test_the_highest_priority_is_run_first(busy, submit, until):
    low = [submit("drill") for _ in range(20)]
    high = submit("drill", priority=10)
    first = until("done", high, 20)["started_at"]
    assert first < min(until("done", job, 20)["started_at"] for job in low)
    assert first > min(until("done", job, 20)["finished_at"] for job in busy)


def test_a_job_too_late_is_not_run_and_is_counted(fleet, client, busy, submit, until):
    def expired(host):
        text = fleet.ssh(host, "curl -fsS http://127.0.0.1:8000/metrics")
        return float(re.search(r'^refapp_jobs\{state="expired"\} (\S+)$', text, re.M)[1])

    host = fleet.groups["app"][0]
    before = expired(host)
    late, lasting = submit("drill", ttl=1), submit("drill", ttl=60)
    assert until("done", lasting, 20)["started_at"]
    assert until("expired", late, 20)["started_at"] is None
    # A process answers the same figures for five seconds.
    eventually(lambda: expired(host) > before, 15)


def test_a_delay_and_a_backoff_are_kept(submit, until):
    def seconds(job, begin, end):
        begin, end = (datetime.fromisoformat(job[name]) for name in (begin, end))
        return (end - begin).total_seconds()

    delayed = submit("drill", delay=4)
    failing = submit("drill", args={"failures": 4})
    failed, ran = until("done", failing), until("done", delayed)
    assert 4 <= seconds(ran, "created_at", "started_at") < 4 + 5
    assert (failed["failures"], failed["result"]) == (4, {"starts": 5})
    # A quarter of a second, and doubled each time, with a fifth of jitter.
    assert 0.8 * (0.25 + 0.5 + 1 + 2) <= seconds(failed, "created_at", "started_at") < 10


def now(fleet):
    """The database's time, in its own words."""
    return fleet.sql("SELECT clock_timestamp();")[0][0]


def prove_ticks(fleet, since, least):
    """Since then each tick of `pulse` came once, and led to one job, which was done."""
    # Their key forbids two rows for one tick; that none is missing and that each has its job:
    query = (
        "SELECT count(*), count(*) FILTER (WHERE gap <> interval '10 s'), count(DISTINCT job_id), "
        "count(*) FILTER (WHERE NOT EXISTS (SELECT FROM jobs WHERE id = job_id "
        "AND kind = 'pulse' AND state = 'done')) "
        "FROM (SELECT *, tick - lag(tick) OVER (ORDER BY tick) AS gap FROM cron_ticks "
        f"WHERE name = 'pulse' AND tick >= '{since}') AS ticks;"
    )

    def proved():
        ticks, gaps, jobs, undone = fleet.sql(query)[0]
        print(f"{ticks} ticks, {gaps} gaps, {jobs} jobs, {undone} of them not done")
        return int(ticks) >= least and (gaps, jobs, undone) == ("0", ticks, "0")

    eventually(proved, 20)
    extra = (
        f"SELECT count(*) FROM jobs WHERE kind = 'pulse' AND created_at >= '{since}' "
        "AND id NOT IN (SELECT job_id FROM cron_ticks);"
    )
    assert fleet.sql(extra) == [["0"]], "jobs that no tick has made"


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.full)])
def test_each_effect_is_there_once_after_kills_and_a_deploy(
    fleet, submit, until, another_release, count
):
    item, amounts = f"jobs-{uuid.uuid4().hex[:12]}", itertools.count(1)
    deployed, began = threading.Event(), now(fleet)

    def ask():
        ids = set()
        while (amount := next(amounts)) <= count or not deployed.is_set():
            args = {"sales": [{"item": item, "amount": amount}]}
            ids.add(submit("sales-import", args=args)["id"])
            time.sleep(0.2)  # some 30 a second: the queue is never long, and never idle
        return ids

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        try:
            for host in fleet.groups["app"]:
                kill(fleet, host, "worker")
                time.sleep(2)
            long = [
                submit("drill", args={"seconds": 25}, priority=100) for _ in fleet.groups["app"]
            ]
            # Not killed meanwhile: a deploy rightly fails when the new release does not stay up.
            during = now(fleet)
            play("deploy.yml", "-e", f"release={another_release}")
            during = f"finished_at BETWEEN '{during}' AND '{now(fleet)}'"
        finally:
            deployed.set()
        for host in fleet.groups["app"]:
            kill(fleet, host, "worker")
        ids = set().union(*(each.result() for each in asking))
    query = f"SELECT count(*), count(DISTINCT amount) FROM sales WHERE item = '{item}';"
    wanted = [[str(len(ids))] * 2]
    eventually(lambda: fleet.sql(query) == wanted, 60 + count / 20)
    for job in long:
        assert until("done", job)["failures"] == 0, "stopping a worker cost an attempt"
    time.sleep(15)  # what was taken over would have its second effect by now
    assert fleet.sql(query) == wanted
    assert len(ids) >= count
    [[done, hosts, pause]] = fleet.sql(
        "SELECT count(*), count(DISTINCT host), "
        "coalesce(extract(epoch FROM max(finished_at - before)), 1000) FROM (SELECT *, "
        "lag(finished_at) OVER (ORDER BY finished_at) AS before FROM jobs "
        f"WHERE kind = 'sales-import' AND {during} "
        f"AND args #>> '{{sales,0,item}}' = '{item}') AS mine;"
    )
    print(f"{len(ids)} jobs, {done} of them done during the deploy, longest pause {pause} s")
    assert int(done) >= 200, "the queue was idle during the deploy"
    assert int(hosts) == len(fleet.groups["app"])
    assert float(pause) < 10
    prove_ticks(fleet, began, 5)


def test_each_tick_comes_once_while_leaders_are_frozen_and_killed(fleet, client):
    def leader(after):
        def found():
            answer = client.get(f"{fleet.url}/cron", timeout=10)
            state = answer.json() if answer.status_code == 200 else {}
            return state.get("leader") and state["epoch"] > after and state

        return eventually(found, TAKEOVER)

    first = leader(0)
    began = now(fleet)
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
    prove_ticks(fleet, began, 3)
