"""Each tick is enqueued once, whatever happens to the process that leads."""

import itertools
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from refapp.cron.schedule import MOST, SCHEDULES, Schedule
from refapp.cron.ticker import Ticker
from refapp.extensions import db
from refapp.jobs import queue
from refapp.jobs.work import KINDS
from workers import Process, eventually

# A tick a second: more of them than the schedule of production has.
EVERY_SECOND = """
from refapp.cron.__main__ import main
from refapp.cron.schedule import Schedule
from refapp.factory import create_app
main(create_app(), [Schedule("second", "* * * * * *", "pulse", ttl=3600)])
"""
TAKEOVER = 15  # seconds within which another must lead
NOTHING = "TRUNCATE jobs, procrastinate_jobs, cron_ticks, cron_schedules CASCADE"


@pytest.fixture
def cron(environ, logs, sql):
    """Start processes that may lead, where there is no job; nothing of them is left."""
    sql(NOTHING)
    started = []

    def start(name, *command):
        started.append(Process(environ, logs, name, *(command or ("-c", EVERY_SECOND))))
        return started[-1]

    yield start
    for process in started:
        process.end()
    sql(NOTHING)
    sql("UPDATE cron_lease SET until = now() - interval '1 second'")


@pytest.fixture
def lease(sql):
    """Return host and epoch of who leads now, or None."""

    def lease():
        rows = sql("SELECT host, epoch FROM cron_lease WHERE until > now()")
        return rows[0] if rows else None

    return lease


def lead(lease, hosts):
    return eventually(lambda: (now := lease()) and now[0] in hosts and now, TAKEOVER)


@pytest.mark.fleet
def test_leaders_are_frozen_killed_and_stopped_and_each_tick_is_there_once(cron, lease, sql):
    processes = {name: cron(name) for name in ("cron1", "cron2", "cron3")}
    for process in processes.values():
        eventually(lambda process=process: process.said("cron starts"))
    first, epoch = lead(lease, processes)
    time.sleep(2)

    processes[first].freeze()
    others = set(processes) - {first}
    second, next_epoch = lead(lease, others)
    assert next_epoch > epoch
    time.sleep(3)

    processes[first].thaw()  # and now it thinks that it leads
    eventually(lambda: processes[first].said("follows"))
    time.sleep(3)

    processes[second].kill()
    third, last_epoch = lead(lease, set(processes) - {second})
    assert last_epoch > next_epoch

    assert processes[third].stop() == 0
    resigned = "SELECT until < now() OR host <> %s FROM cron_lease"
    assert sql(resigned, third) == [(True,)], "the next one would have to wait"
    lead(lease, set(processes) - {second, third})
    time.sleep(2)

    ticks = [tick for (tick,) in sql("SELECT tick FROM cron_ticks ORDER BY tick")]
    assert len(ticks) > 15
    steps = {later - earlier for earlier, later in itertools.pairwise(ticks)}
    assert steps == {timedelta(seconds=1)}, "missed or doubled"
    epochs = [epoch for (epoch,) in sql("SELECT epoch FROM cron_ticks ORDER BY tick")]
    assert epochs == sorted(epochs), "an old leader enqueued after a new one"
    assert len(set(epochs)) >= 4
    # Each tick is one job, and there is no job without a tick.
    assert sql(
        "SELECT count(*) FROM cron_ticks FULL JOIN jobs ON jobs.id = job_id "
        "WHERE jobs.id IS NULL OR job_id IS NULL"
    ) == [(0,)]


def test_a_leader_that_lost_its_lease_enqueues_nothing(app, sql, cron):
    """Without any process that it might lose a race to: the lease alone forbids it."""
    schedules = [Schedule("second", "* * * * * *", "pulse", ttl=3600)]
    old, new = Ticker(db, "old", schedules), Ticker(db, "new", schedules)
    eventually(lambda: old.step() or sql("SELECT host FROM cron_lease") == [("old",)])
    sql("UPDATE cron_lease SET until = now() - interval '1 second'")
    new.step()
    before = sql("SELECT count(*) FROM cron_ticks")
    time.sleep(1.5)
    old.step()
    assert sql("SELECT count(*) FROM cron_ticks") == before
    assert sql("SELECT host FROM cron_lease") == [("new",)]
    new.step()
    assert sql("SELECT count(*) FROM cron_ticks") > before


def test_ticks_that_nobody_enqueued_are_made_up_for(app, sql, cron):
    ticker = Ticker(db, "host", [Schedule("minute", "* * * * *", "pulse", ttl=600)])
    eventually(lambda: ticker.step() or sql("SELECT name FROM cron_schedules") == [("minute",)])
    sql("UPDATE cron_schedules SET last_tick = now() - interval '1 day'")
    ticker.step()
    count = sql("SELECT count(*) FROM cron_ticks")[0][0]
    assert count in (10, 11), "those of the last ten minutes; older ones would be expired"
    ticker.step()
    assert sql("SELECT count(*) FROM jobs")[0][0] in (count, count + 1)


def test_a_tick_is_enqueued_though_its_connection_was_lost(app, sql, cron, lose_the_database):
    ticker = Ticker(db, "host", [Schedule("lost", "* * * * *", "pulse", ttl=600)])
    eventually(lambda: ticker.step() or sql("SELECT name FROM cron_schedules") == [("lost",)])
    assert lose_the_database == []
    sql("UPDATE cron_schedules SET last_tick = now() - interval '90 s'")
    ticker.step()
    assert lose_the_database
    [(ticks,)] = sql("SELECT count(*) FROM cron_ticks WHERE name = 'lost'")
    assert ticks in (1, 2)
    assert sql("SELECT count(*) FROM procrastinate_jobs WHERE args ->> 'kind' = 'pulse'") == [
        (ticks,)
    ]


def test_the_clock_goes_on_whatever_a_step_meets(cron):
    """It ends with its process, and systemd starts that a few times only."""
    process = cron("cron1", "-c", EVERY_SECOND.replace('"pulse"', '"nothing"'))
    eventually(lambda: len(process.said("no step")) > 1)
    assert process.alive()


def test_the_schedule_names_kinds_that_there_are():
    assert {schedule.kind for schedule in SCHEDULES} <= set(KINDS)
    assert min(schedule.priority for schedule in SCHEDULES) > 0, "before what users ask for"
    assert len({schedule.name for schedule in SCHEDULES}) == len(SCHEDULES)


def test_ticks_between_two_times():
    schedule = Schedule("x", "*/15 * * * *", "pulse", ttl=60)
    noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
    quarter = timedelta(minutes=15)
    assert schedule.between(noon, noon + 2 * quarter) == [noon + quarter, noon + 2 * quarter]
    assert schedule.between(noon, noon + timedelta(minutes=14)) == []
    assert len(schedule.between(noon, noon + timedelta(days=365))) == MOST


def test_cron_is_shown_and_its_pulse_is_run(cron, work, client, bearer, lease, sql):
    cron("cron1", "-m", "refapp.cron")
    work()

    def shown():
        return client.get("/cron", headers=bearer).json

    def pulse():
        return next(each for each in shown()["schedules"] if each["name"] == "pulse")

    assert shown()["leader"] is None or shown()["leader"]["host"] == "cron1"
    eventually(lambda: shown()["leader"] and pulse()["last_job"])
    state = shown()
    assert (state["leader"]["host"], state["epoch"]) == lease()
    found = pulse()
    assert found["next_tick"] > found["last_tick"]
    job = f"/jobs/{found['last_job']}"
    eventually(lambda: client.get(job, headers=bearer).json["state"] == "done")
    assert client.get("/cron").status_code == 401


def test_the_sweep_deletes_what_never_arrived(client, bearer, work, app, sql, object_store):
    given = {"filename": "a.txt", "content_type": "text/plain", "size": 1}
    old, new, sent = (
        client.post("/uploads", json=given, headers=bearer).json["id"] for _ in range(3)
    )
    old_key, sent_key = (
        sql("SELECT object_key FROM uploads WHERE id = %s", each)[0][0] for each in (old, sent)
    )
    for key in (old_key, sent_key):
        object_store.objects[f"/refapp-uploads/{key}"] = b"x"
    for each in (old, sent):
        sql("UPDATE uploads SET created_at = now() - interval '25 hours' WHERE id = %s", each)
    sql("UPDATE uploads SET completed_at = now() WHERE id = %s", sent)
    job = queue.describe("sweep-uploads", {})
    db.run(lambda session: queue.enqueue(session, job))
    work()
    swept = "SELECT result FROM jobs WHERE kind = 'sweep-uploads'"
    eventually(lambda: sql(swept) == [({"swept": 1},)])
    answers = [client.get(f"/uploads/{each}", headers=bearer) for each in (old, new, sent)]
    assert [answer.status_code for answer in answers] == [404, 200, 200]
    assert f"/refapp-uploads/{sent_key}" in object_store.objects
    assert f"/refapp-uploads/{old_key}" not in object_store.objects


def test_pruning_keeps_what_is_recent_and_what_is_dead(submit, app, work, sql):
    ids = [submit()["id"] for _ in range(4)]
    old_key, fresh_key = (uuid.uuid4().hex for _ in range(2))
    kept = [submit(key=key, delay=3600) for key in (old_key, fresh_key)]
    sql(
        "UPDATE idempotency_keys SET created_at = now() - interval '3 days' WHERE key = %s", old_key
    )
    over, lasting = (uuid.uuid4() for _ in range(2))
    for login, days in ((over, -2), (lasting, 1)):
        sql(
            "INSERT INTO logins (id, user_id, issued_at, expires_at, created_at) SELECT %s, id, "
            "now(), now() + make_interval(days => %s), now() FROM users WHERE username = 'admin'",
            login, days,
        )  # fmt: skip
    states = [("done", 8), ("done", 6), ("dead", 8), ("dead", 31)]
    for id_, (state, days) in zip(ids, states, strict=True):
        sql(
            "UPDATE jobs SET state = %s, finished_at = now() - make_interval(days => %s) "
            "WHERE id = %s::uuid", state, days, id_,
        )  # fmt: skip
    sql(
        "INSERT INTO cron_ticks SELECT 'x', now() - make_interval(days => n), 1, 'h', "
        "gen_random_uuid() FROM generate_series(1, 30) AS n"
    )
    job = queue.describe("prune-jobs", {})
    db.run(lambda session: queue.enqueue(session, job))
    work()
    done = "SELECT result FROM jobs WHERE kind = 'prune-jobs' AND state = 'done'"
    [(result,)] = eventually(lambda: sql(done))
    assert (result["drill"], result["ticks"]) == (2, 17)
    left = {str(id_) for (id_,) in sql("SELECT id FROM jobs WHERE kind = 'drill'")}
    assert left == {ids[1], ids[2], *(job["id"] for job in kept)}
    assert (result["keys"], result["logins"]) == (1, 1)
    assert sql("SELECT id FROM logins WHERE id IN (%s, %s)", over, lasting) == [(lasting,)]
    assert submit(key=fresh_key, delay=3600)["id"] == kept[1]["id"]
    assert submit(key=old_key, delay=3600)["id"] != kept[0]["id"]
