"""Jobs over HTTP, run by one real worker: order, time and ends."""

import os
import signal
import time
import uuid

import pytest
import sqlalchemy as sa
from conftest import make_token
from refapp.extensions import db
from refapp.jobs import queue
from refapp.jobs.delivery import LONGEST, backoff
from refapp.jobs.views import MOST
from workers import eventually


def test_a_report_shows_progress_and_has_a_result(work, submit, until, sql):
    work()
    done = until("done", submit("sales-report"))
    [(items, count, total)] = sql("SELECT count(DISTINCT item), count(*), sum(amount) FROM sales")
    result = done["result"]
    assert (result["items"], result["count"], result["total"]) == (items, count, total)
    assert len(result["best"]) == 10
    assert done["progress"] == 100
    assert done["host"].startswith("worker1")


def test_progress_is_seen_while_a_job_runs(work, submit, look, until):
    work()
    job = submit(args={"seconds": 4})
    seen = eventually(lambda: (now := look(job))["progress"] > 0 and now)
    assert seen["state"] == "running"
    assert seen["message"].endswith("s left")
    assert until("done", job)["progress"] == 100


def test_an_import_is_in_the_totals_at_once(work, submit, until, client, item):
    work()
    address = f"/sales/total?item={item}"
    assert client.get(address).json["count"] == 0  # and so it is in the cache
    until("done", submit("sales-import", args={"sales": [{"item": item, "amount": 5}] * 3}))
    wanted = {"item": item, "count": 3, "total": 15}
    eventually(lambda: client.get(address).json == wanted, 15)  # sooner than the cache forgets


def test_a_high_job_overtakes_a_thousand_low_ones(work, submit, until, sql):
    low = [submit(priority=-10) for _ in range(1000)]
    high = submit(priority=10)
    work(WEB_CONCURRENCY="2")
    until("done", high)
    [(before,)] = sql(
        "SELECT count(*) FROM jobs WHERE priority < 0 AND started_at < "
        "(SELECT started_at FROM jobs WHERE id = %s)",
        uuid.UUID(high["id"]),
    )
    assert before <= 2  # what the others of its worker started with it
    until("done", low[-1], 60)


def test_a_delayed_job_waits(work, submit, until, sql):
    work()
    job, other = submit(delay=3), submit()
    until("done", other)
    until("done", job)
    [(late,)] = sql(
        "SELECT extract(epoch FROM started_at - created_at) FROM jobs WHERE id = %s",
        uuid.UUID(job["id"]),
    )
    assert late >= 3


def test_an_expired_job_is_not_run_and_is_counted(work, submit, until, client, sql):
    expired = submit(ttl=1)
    lasting = submit(ttl=600)
    time.sleep(1.5)
    work()
    until("done", lasting)
    assert until("expired", expired)["started_at"] is None

    def metrics():
        return client.get("/metrics").text.splitlines()

    eventually(lambda: 'refapp_jobs{state="expired"} 1.0' in metrics())
    assert 'refapp_jobs{state="done"} 1.0' in metrics()


def test_a_time_limit_ends_a_call_into_c(work, submit, until):
    work(WEB_CONCURRENCY="1")
    stuck = submit(args={"how": "compute", "seconds": 60}, time_limit=2, max_attempts=1)
    after = submit()
    dead = until("dead", stuck)
    assert dead["error"] == "stopped after 2 s"
    until("done", after)  # the worker has its place back


def test_a_job_fails_backs_off_dies_and_is_retried(work, submit, until, client, bearer, sql):
    worker = work()
    job = submit(args={"failures": 4}, max_attempts=3)
    dead = until("dead", job)
    assert dead["failures"] == 3
    assert dead["error"] == "failure 3 of the 4 asked for"
    ended = [line for line in worker.said("job ended") if line["job"] == job["id"]]
    assert [line["outcome"] for line in ended] == ["failed"] * 3

    listed = client.get("/jobs?state=dead", headers=bearer).json
    assert [each["id"] for each in listed["jobs"]] == [job["id"]]

    answer = client.post(f"/jobs/{job['id']}/retry", headers=bearer)
    assert answer.status_code == 202
    # It counts its failures anew, and so it dies anew.
    again = eventually(
        lambda: (now := until("dead", job))["finished_at"] != dead["finished_at"] and now
    )
    assert again["failures"] == 3
    assert client.get("/jobs?state=dead&limit=1", headers=bearer).json["next"] is None
    done = submit(args={"failures": 2}, max_attempts=3)
    assert until("done", done)["failures"] == 2
    assert client.post(f"/jobs/{done['id']}/retry", headers=bearer).status_code == 409


def test_backoff_doubles():
    for failures in range(20):
        wanted = min(0.5 * 2**failures, LONGEST)
        assert 0.79 * wanted < backoff(0.5, failures) < 1.21 * wanted


def test_a_job_whose_process_dies_has_failed(work, submit, look, until):
    """Killed by the system, say for its memory: that's an attempt, and its worker goes on."""
    worker = work(WEB_CONCURRENCY="1")
    job = submit(args={"seconds": 60}, max_attempts=1)
    # Not before its code runs: while that is imported croniter starts a `file` for a moment.
    eventually(lambda: look(job)["message"])
    [child] = worker.children()
    os.kill(child, signal.SIGKILL)
    assert until("dead", job)["error"] == "process ended with -9"
    until("done", submit())


def test_a_key_is_one_job(submit, sql):
    key = uuid.uuid4().hex
    first, second = submit(key=key), submit(key=key)
    assert first == second
    assert sql("SELECT count(*) FROM jobs WHERE id = %s", uuid.UUID(first["id"])) == [(1,)]
    submit(key=key, args={"seconds": 1}, status=422)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"kind": "nothing"}, "kind"),
        ({"kind": "sweep-uploads"}, "kind"),  # cron's alone
        ({"kind": "drill", "args": {"seconds": 61}}, "args"),
        ({"kind": "drill", "args": {"speed": 1}}, "args"),
        ({"kind": "sales-import", "args": {}}, "args"),
        ({"kind": "sales-import", "args": {"sales": [{"item": "x", "amount": 0}]}}, "args"),
        ({"kind": "drill", "priority": 101}, "priority"),
        ({"kind": "drill", "delay": -1}, "delay"),
        ({"kind": "drill", "ttl": 0}, "ttl"),
        ({"kind": "drill", "time_limit": 91}, "time_limit"),
        ({"kind": "drill", "max_attempts": "3"}, "max_attempts"),
        ({"kind": "drill", "color": "red"}, "color"),
    ],
)
def test_a_mistake_is_named(client, bearer, given, field):
    answer = client.post("/jobs", json=given, headers=bearer)
    assert answer.status_code == 422
    assert list(answer.json["errors"]["json"]) == [field]


def test_pages_of_a_list_are_all_of_it(submit, client, bearer, sql):
    wanted = [submit()["id"] for _ in range(7)]
    found, address = [], "/jobs?limit=3"
    while address:
        page = client.get(address, headers=bearer).json
        found += [job["id"] for job in page["jobs"]]
        address = page["next"] and f"/jobs?limit=3&before={page['next']}"
    assert found[:7] == wanted[::-1]
    assert len(found) == len(set(found))
    sql("TRUNCATE jobs, procrastinate_jobs CASCADE")


@pytest.fixture
def user(client, bearer):
    """Headers of a user without roles."""
    given = {"username": uuid.uuid4().hex, "password": "a long enough one"}
    assert client.post("/users", json=given, headers=bearer).status_code == 201
    token = client.post("/auth/login", json=given).json["access_token"]
    return {"Authorization": f"Bearer {token}"}


def test_only_admins_put_their_jobs_before_others(client, submit, user, sql):
    given = {"kind": "drill", "priority": 1}
    answer = client.post("/jobs", json=given, headers=user)
    assert answer.status_code == 422
    assert answer.json["errors"]["json"] == {"priority": ["Above 0 only for admins."]}
    assert client.post("/jobs", json=given | {"priority": 0}, headers=user).status_code == 202
    assert submit(priority=1)["priority"] == 1
    sql("TRUNCATE jobs, procrastinate_jobs CASCADE")


def test_no_user_but_an_admin_fills_the_queue(client, submit, user, sql):
    def ask(key):
        return client.post("/jobs", json={"kind": "drill"}, headers=user | {"Idempotency-Key": key})

    first, *_ = [ask(f"{n}") for n in range(MOST)]
    assert first.status_code == 202
    refused = ask("next")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert ask("0").json == first.json, "a repeat is no new job"
    # Whoever waits for others' jobs is not kept from having one of their own.
    for _ in range(MOST + 1):
        submit()

    change = "UPDATE jobs SET state = %s WHERE id = %s::uuid"
    sql(change, "dead", first.json["id"])
    assert ask("next").status_code == 202
    retry = f"/jobs/{first.json['id']}/retry"
    assert client.post(retry, headers=user).status_code == 429
    sql(change, "running", first.json["id"])
    assert ask("another").status_code == 429
    sql("TRUNCATE jobs, procrastinate_jobs CASCADE")


def test_open_jobs_are_counted_in_an_index(app, sql):
    """However many of the user's are done, and however many of others' are open."""
    sql(
        "INSERT INTO jobs (id, user_id, kind, args, priority, time_limit, max_attempts, run_at, "
        "state) SELECT gen_random_uuid(), users.id, 'drill', '{}', 0, 1, 1, now(), "
        "CASE WHEN username = 'admin' AND n > 5 THEN 'done' ELSE 'queued' END "
        "FROM users, generate_series(1, 2000) AS n WHERE username IN ('admin', %s)",
        "owner of made tokens",
    )
    sql("ANALYZE jobs")
    [(admin,)] = sql("SELECT id FROM users WHERE username = 'admin'")
    plan = []

    def explain(connection, cursor, statement, parameters, *_):
        if "jobs.user_id" in statement:
            plan.extend(cursor.connection.execute(f"EXPLAIN {statement}", parameters).fetchall())

    def count(session):
        session.execute(sa.text("SET LOCAL enable_seqscan = off"))  # as for a larger table
        return [queue.count_open(session, admin, most) for most in (MOST, 3)]

    sa.event.listen(db.engine, "before_cursor_execute", explain)
    try:
        assert db.run(count) == [5, 3]
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", explain)
        sql("TRUNCATE jobs, procrastinate_jobs CASCADE")
    assert str(plan).count("jobs_open") == 2, plan


def test_jobs_are_for_their_owner(client, submit, sql):
    job = submit()
    bearer = {"Authorization": f"Bearer {make_token()}"}
    assert client.get(f"/jobs/{job['id']}", headers=bearer).status_code == 404
    assert client.post(f"/jobs/{job['id']}/retry", headers=bearer).status_code == 404
    assert client.get("/jobs", headers=bearer).json == {"jobs": [], "next": None}
    assert client.get("/jobs").status_code == 401
    sql("TRUNCATE jobs, procrastinate_jobs CASCADE")
