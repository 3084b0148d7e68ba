"""The kinds of jobs that refapp has."""

import itertools
import time
import uuid
from datetime import timedelta

import sqlalchemy as sa
from marshmallow import Schema, fields, validate

from .. import idempotency, totals
from ..extensions import db, edge, store
from ..models import CronTick, IdempotencyKey, Job, Login, Sale, now
from ..orphans import sweep_orphans
from ..sales import SaleIn, total_path
from .kinds import KINDS, JobError, kind

BATCH = 200
ADDITIONS = 40_000_000  # that one second of a core makes, about


class NoArgs(Schema):
    """A kind that needs to be told nothing."""


@kind("sales-report", NoArgs, time_limit=120)
def sales_report(run):
    """Sum all sales by item, in statements short enough for a busy database."""
    items = read(sa.select(sa.func.count(sa.distinct(Sale.item))))[0][0]
    found, last = [], ""
    while rows := read(items_after(last)):
        found += [{"item": item, "count": n, "total": int(total)} for item, n, total in rows]
        last = rows[-1].item
        run.progress(len(found), max(items, len(found)), f"up to {last}")
    best = sorted(found, key=lambda each: -each["total"])[:10]
    return {
        "items": len(found),
        "count": sum(each["count"] for each in found),
        "total": sum(each["total"] for each in found),
        "best": best,
    }


def items_after(last):
    """Return the query of the next items, each with its number and sum of sales."""
    sums = sa.select(Sale.item, sa.func.count(), sa.func.sum(Sale.amount))
    return sums.where(Sale.item > last).group_by(Sale.item).order_by(Sale.item).limit(BATCH)


def read(query):
    """Return all rows."""
    return db.run(lambda session: session.execute(query).all(), idempotent=True)


class ImportArgs(Schema):
    """Sales to record."""

    sales = fields.List(fields.Nested(SaleIn), required=True, validate=validate.Length(1, 100))


def forget_totals(sales):
    """Make the caches forget what a list of sales has changed."""
    for item in {sale["item"] for sale in sales}:
        totals.forget(item)
        edge.purge(total_path(item))


@kind("sales-import", ImportArgs, after=forget_totals)
def sales_import(run, sales):
    """Record a list of sales, all of them or none, once however often the job is started."""

    def record(session):
        same = {"user_id": run.user_id, "created_at": now()}
        rows = [sale | same | {"id": uuid.uuid4()} for sale in sales]
        session.execute(sa.insert(Sale), rows)
        return {"recorded": len(rows)}

    return run.commit(record)


class DrillArgs(Schema):
    """What to try out."""

    seconds = fields.Integer(load_default=0, strict=True, validate=validate.Range(0, 60))
    how = fields.String(
        load_default="sleep",
        validate=validate.OneOf(["sleep", "compute"]),
        metadata={"description": "`compute` is one call into C that nothing but a kill ends."},
    )
    failures = fields.Integer(
        load_default=0,
        strict=True,
        validate=validate.Range(0, 10),
        metadata={"description": "How many attempts fail before one does not."},
    )


@kind("drill", DrillArgs, time_limit=90, backoff=0.25)
def drill(run, seconds, how, failures):
    """Sleep, compute or fail as told, to see how jobs fare when a fleet changes."""
    if how == "compute":
        sum(itertools.repeat(1, seconds * ADDITIONS))
    else:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            run.progress(seconds - left, seconds, f"{left:.1f} s left")
            time.sleep(min(left, 0.5))
    if run.failures < failures:
        raise JobError(f"failure {run.failures + 1} of the {failures} asked for")
    return {"starts": run.start}


@kind("pulse", NoArgs, requested=False, max_attempts=1, keep=timedelta(hours=6))
def pulse(run):
    """Do nothing: that it was done, and when, shows that cron and workers are alive."""
    return {}


@kind("sweep-uploads", NoArgs, requested=False, time_limit=300)
def sweep_uploads(run):
    """Remove what was announced a day ago and never confirmed, batch by batch."""
    swept = 0
    while count := db.run(lambda session: sweep_orphans(session, store), idempotent=True):
        swept += count
        run.progress(swept, swept, f"{swept} swept")
    return {"swept": swept}


@kind("prune-jobs", NoArgs, requested=False, time_limit=300)
def prune_jobs(run):
    """Delete what nobody asks for any more: finished jobs (dead ones wait for a month), ticks, keys
    that were used, logins that are over.
    """
    pruned = {}
    for each in KINDS.values():
        old = sa.and_(
            Job.kind == each.name,
            sa.or_(
                sa.and_(Job.state.in_(["done", "expired"]), Job.finished_at < now() - each.keep),
                sa.and_(Job.state == "dead", Job.finished_at < now() - timedelta(days=30)),
            ),
        )
        pruned[each.name] = delete(Job, old)
    pruned["ticks"] = delete(CronTick, CronTick.tick < now() - timedelta(days=14))
    pruned["keys"] = delete(IdempotencyKey, IdempotencyKey.created_at < now() - idempotency.KEPT)
    # The user's next login would do the same: this is for who does not come back.
    pruned["logins"] = delete(Login, Login.expires_at < now() - timedelta(days=1))
    return pruned


def delete(table, condition):
    """Delete rows in batches that lock little and end soon; return how many."""
    key = sa.inspect(table).primary_key
    total = 0
    while True:
        batch = sa.select(*key).where(condition).limit(1000)
        gone = sa.delete(table).where(sa.tuple_(*key).in_(batch))
        count = db.run(lambda session, gone=gone: session.execute(gone).rowcount, idempotent=True)
        total += count
        if count == 0:
            return total
