"""Jobs and cron on the fleet: what was accepted is done once, and each tick comes once."""

import re
import time
from datetime import datetime

import pytest

from tests.fleet.support import eventually
from tests.fleet.work import Jobs, kill, now, prove_ticks

TAKEOVER = 15  # seconds within which another process must lead cron


@pytest.fixture
def submit(fleet, client):
    return Jobs(fleet, client).submit


@pytest.fixture
def until(fleet, client):
    return Jobs(fleet, client).until


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
