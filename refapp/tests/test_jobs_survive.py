"""What was accepted is done, each effect once, whatever happens to the processes that do it."""

import os
import random
import signal
import threading
import time
import uuid

import pytest
from amounts import amount
from conftest import connect
from refapp.sales import total_path
from workers import eventually

JOBS = int(os.environ.get("REFAPP_TEST_JOBS") or amount(150, 500))


@pytest.fixture
def imports(submit, item):
    """Ask for jobs that each record one sale, of its own amount."""

    def imports(count):
        for worth in range(1, count + 1):
            submit("sales-import", args={"sales": [{"item": item, "amount": worth}]})

    return imports


def count_left(sql):
    return sql("SELECT count(*) FROM jobs WHERE state <> 'done'")[0][0]


@pytest.mark.fleet
def test_workers_are_killed_and_each_effect_is_there_once(work, imports, item, sql):
    names = [f"killed-{number}" for number in range(3)]
    workers = {name: work(name, WEB_CONCURRENCY="2") for name in names}
    finished = threading.Event()

    def kill_one_after_another():
        chance = random.Random(1)
        while not finished.wait(chance.uniform(0.1, 0.5)):
            # Each gets to do something first, however slow the machine is.
            name = chance.choice(names)
            if len(workers[name].said("job ended")) >= chance.randrange(1, 15):
                workers[name].kill()
                workers[name] = work(name, WEB_CONCURRENCY="2")
                killed.append(name)

    killed = []
    killer = threading.Thread(target=kill_one_after_another)
    killer.start()
    try:
        imports(JOBS)
        eventually(lambda: count_left(sql) < JOBS / 10, 120 + JOBS / 4)
    finally:
        finished.set()
        killer.join()
    eventually(lambda: count_left(sql) == 0, 120)
    assert len(killed) >= 3
    [(count, different, total)] = sql(
        "SELECT count(*), count(DISTINCT amount), sum(amount) FROM sales WHERE item = %s", item
    )
    assert (count, different, total) == (JOBS, JOBS, JOBS * (JOBS + 1) / 2)
    # Of some jobs that are done the entry is still to be taken over.
    eventually(lambda: sql("SELECT count(*) FROM procrastinate_jobs") == [(0,)])
    taken = sql("SELECT count(*) FROM jobs WHERE starts > 1")[0][0]
    print(f"{len(killed)} workers killed, {taken} of {JOBS} jobs started more than once")


def test_a_job_of_a_killed_worker_is_taken_over(work, submit, until):
    first = work("first")
    job = submit(args={"seconds": 3})
    until("running", job)
    first.kill()
    work("second")
    done = until("done", job)
    assert done["host"].startswith("second")
    assert done["failures"] == 0
    assert done["result"] == {"starts": 2}


def test_a_frozen_worker_does_no_harm_when_it_comes_back(work, submit, look, until, sql):
    """Its job was taken over meanwhile: it may neither repeat the effect nor end the other's."""
    frozen = work("frozen", WEB_CONCURRENCY="1")
    job = submit(args={"seconds": 14})
    eventually(lambda: look(job)["progress"] > 0)
    frozen.freeze()
    work("other", WEB_CONCURRENCY="1")
    taken = eventually(lambda: (now := until("running", job))["host"].startswith("other") and now)
    assert taken["failures"] == 0
    frozen.thaw()
    eventually(lambda: [each["outcome"] for each in frozen.said("job ended")] == ["superseded"])
    entry = sql("SELECT status FROM procrastinate_jobs")
    assert entry == [("doing",)], "the entry of the one that works on it was removed"
    done = until("done", job)
    assert done["host"].startswith("other")
    assert done["result"] == {"starts": 2}


def test_a_stopping_worker_finishes_what_it_can(work, submit, until):
    worker = work(REFAPP_JOB_GRACE="15")
    job = submit(args={"seconds": 3})
    until("running", job)
    waiting = [submit(args={"seconds": 1}) for _ in range(3)]
    assert worker.stop() == 0
    done = until("done", job, 1)
    assert done["failures"] == 0
    assert until("queued", waiting[-1], 1)["started_at"] is None


def test_a_stopping_worker_hands_back_what_it_can_not_finish(work, submit, until, sql):
    worker = work(REFAPP_JOB_GRACE="1")
    job = submit(args={"seconds": 10})
    stuck = submit(args={"how": "compute", "seconds": 60}, time_limit=5, max_attempts=1)
    until("running", job)
    until("running", stuck)
    started = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - started < 8
    back = until("queued", job, 1)
    assert (back["failures"], back["message"]) == (0, "handed back")
    assert sql("SELECT DISTINCT status, scheduled_at <= now() FROM procrastinate_jobs") == [
        ("todo", True)
    ]
    work("next")
    assert until("done", job)["result"] == {"starts": 2}
    until("dead", stuck)


def test_a_sweep_that_meets_a_lock_costs_no_job(work, submit, until, database, sql):
    other = uuid.UUID(submit(delay=3600)["id"])
    entry = sql("SELECT delivery FROM jobs WHERE id = %s", other)[0]
    sql(
        "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = %s", *entry
    )  # and lost: no worker
    with connect(database) as connection:
        with connection.transaction():
            connection.execute("SELECT FROM procrastinate_jobs WHERE id = %s FOR UPDATE", entry)
            worker = work(REFAPP_JOB_GRACE="1")
            job = submit(args={"seconds": 6})
            until("running", job)
            eventually(lambda: worker.said("no sweep"))
            assert until("done", job)["result"] == {"starts": 1}
        assert not worker.said("worker starts over")
        eventually(lambda: [line["job"] for line in worker.said("job taken over")] == [str(other)])


def test_work_goes_on_after_an_outage_of_the_database(work, imports, postgres, sql, item):
    worker = work()
    imports(200)
    postgres.stop()
    time.sleep(5)
    assert sum(line["message"] == "job ended" for line in worker.lines()) < 200
    postgres.start()
    eventually(lambda: sql("SELECT DISTINCT state FROM jobs") == [("done",)], 60)
    sales = "SELECT count(*), count(DISTINCT amount) FROM sales WHERE item = %s"
    assert sql(sales, item) == [(200, 200)]
    assert worker.alive()


def test_what_follows_an_effect_is_repeated_when_it_was_cut_off(
    work, submit, until, cache, sql, item
):
    cache.delay = 0.2  # for each purge: killed in the middle of them
    worker = work(WEB_CONCURRENCY="1")
    items = [f"{item}-{number}" for number in range(20)]
    sales = [{"item": each, "amount": 1} for each in items]
    until("done", submit("sales-import", args={"sales": sales}))
    [child] = worker.children()
    os.kill(child, signal.SIGKILL)
    wanted = {("PURGE", total_path(each)) for each in items}
    assert not wanted <= set(cache.purged)
    cache.delay = 0
    eventually(lambda: wanted <= set(cache.purged))
    eventually(lambda: sql("SELECT count(*) FROM procrastinate_jobs") == [(0,)])
    assert sql("SELECT count(*) FROM sales WHERE item LIKE %s", f"{item}-%") == [(20,)]


def test_an_unknown_kind_waits_for_a_release_that_knows_it(work, submit, until, look, sql):
    worker = work()
    until("done", submit())
    newer, user = uuid.uuid4(), sql("SELECT id FROM users LIMIT 1")[0][0]
    sql(
        "INSERT INTO jobs (id, user_id, kind, args, priority, time_limit, max_attempts, run_at, "
        "delivery) SELECT %s, %s, 'newer', '{}', 0, 60, 1, now(), (procrastinate_defer_jobs_v1("
        "ARRAY[ROW('jobs', 'refapp.job', 0, NULL, NULL, jsonb_build_object('job', %s::text, "
        "'kind', 'newer'), NULL)::procrastinate_job_to_defer_v1]))[1]",
        newer, user, str(newer),
    )  # fmt: skip
    eventually(lambda: worker.said("unknown kind of job"))
    waiting = look({"id": newer})
    assert (waiting["state"], waiting["failures"]) == ("queued", 0)
    assert sql("SELECT count(*) FROM procrastinate_jobs") == [(1,)]


def test_an_idle_process_that_was_killed_costs_no_attempt(work, submit, until):
    worker = work(WEB_CONCURRENCY="1")
    until("done", submit())
    [child] = worker.children()
    os.kill(child, signal.SIGKILL)
    eventually(lambda: not worker.children())
    assert until("done", submit(max_attempts=1))["failures"] == 0
