"""Jobs whose database is full, slow, locked or lost for a moment."""

import contextlib
import time
import uuid
from datetime import datetime, timedelta

from conftest import connect
from workers import eventually


@contextlib.contextmanager
def before_sales(sql, item, statement):
    """Have the database execute a statement before it records a sale of an item."""
    sql(
        "CREATE FUNCTION hinder() RETURNS trigger LANGUAGE plpgsql "
        f"AS $$BEGIN {statement}; RETURN NEW; END$$;"
        "CREATE TRIGGER hinder BEFORE INSERT ON sales FOR EACH ROW "
        f"WHEN (NEW.item = '{item}') EXECUTE FUNCTION hinder()"
    )
    try:
        yield
    finally:
        sql("DROP FUNCTION hinder CASCADE")


def test_a_job_waits_for_room_on_the_disk(work, submit, look, until, sql, item):
    """However long it takes until somebody makes some."""
    work(WEB_CONCURRENCY="1")
    sales = [{"item": item, "amount": 1}]
    with before_sales(sql, item, "RAISE EXCEPTION USING ERRCODE = 'disk_full'"):
        job = submit("sales-import", args={"sales": sales}, max_attempts=1)
        time.sleep(5)
        assert look(job)["state"] in ("queued", "running")
    assert until("done", job)["failures"] == 0


def test_a_sale_for_which_the_disk_has_no_room_is_refused_for_now(sql, item, sell):
    with before_sales(sql, item, "RAISE EXCEPTION USING ERRCODE = 'disk_full'"):
        assert sell(item).status_code == 503
    assert sell(item).status_code == 201


def test_a_job_whose_statement_is_always_too_slow_dies(work, submit, look, until, sql, item):
    """The database is there: waiting for it would be for ever, and each try loads it."""
    work(WEB_CONCURRENCY="1")
    sales = [{"item": item, "amount": 1}]
    with before_sales(sql, item, "PERFORM pg_sleep(3)"):  # more than a statement may take
        job = submit("sales-import", args={"sales": sales}, max_attempts=2)
        waits = eventually(lambda: (now := look(job))["failures"] and now)
        dead = until("dead", job)
    assert (dead["failures"], dead["error"]) == (2, "TooSlow")
    started, again = (datetime.fromisoformat(waits[name]) for name in ("started_at", "run_at"))
    assert again - started > timedelta(seconds=12), "it may be slow for a while"


def test_a_job_is_accepted_though_its_connection_was_lost(submit, sql, lose_the_database):
    job = submit(key=uuid.uuid4().hex)
    assert lose_the_database
    wanted = "SELECT count(*) FROM procrastinate_jobs WHERE args ->> 'job' = %s"
    assert sql(wanted, job["id"]) == [(1,)]
    assert sql("SELECT count(*) FROM jobs WHERE id = %s", uuid.UUID(job["id"])) == [(1,)]


def test_a_queue_that_is_locked_is_away_for_now(submit, database):
    with connect(database) as connection, connection.transaction():
        connection.execute("LOCK procrastinate_jobs")
        submit(status=503)
    submit()
