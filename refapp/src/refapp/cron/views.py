"""Who leads, and what runs when."""

import sqlalchemy as sa
from marshmallow import Schema, fields

from ..api import Blueprint
from ..auth import protected
from ..extensions import db
from ..models import CronLease, CronSchedule, CronTick
from .schedule import SCHEDULES

bp = Blueprint("cron", __name__, description="The schedule and its leader")


class Leader(Schema):
    """The process that enqueues ticks."""

    host = fields.String(required=True)
    instance = fields.String(required=True)
    since = fields.DateTime(required=True)
    until = fields.DateTime(required=True, metadata={"description": "Unless it renews."})


class ScheduleOut(Schema):
    """A schedule."""

    name = fields.String(required=True)
    cron = fields.String(required=True)
    kind = fields.String(required=True)
    last_tick = fields.DateTime(allow_none=True)
    last_job = fields.UUID(allow_none=True)
    next_tick = fields.DateTime(required=True)


class CronOut(Schema):
    """The state of cron."""

    leader = fields.Nested(
        Leader, required=True, allow_none=True, metadata={"description": "null while nobody leads."}
    )
    epoch = fields.Integer(required=True, metadata={"description": "Grows with each new leader."})
    schedules = fields.List(fields.Nested(ScheduleOut), required=True)


@bp.after_request
def never_stored(response):
    """It changes by itself."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/cron")
@protected
@bp.response(200, CronOut)
@bp.problems(503)
def show():
    """Show who leads, and the last and next ticks."""
    return db.run(read, idempotent=True)


def read(session):
    """Return what CronOut describes."""
    lease, now = session.execute(sa.select(CronLease, sa.func.now())).one()
    ticks = sa.select(CronSchedule.name, CronSchedule.last_tick, CronTick.job_id)
    same = (CronTick.name == CronSchedule.name) & (CronTick.tick == CronSchedule.last_tick)
    known = {row.name: row for row in session.execute(ticks.outerjoin(CronTick, same))}
    schedules = []
    for schedule in SCHEDULES:
        row = known.get(schedule.name)
        job_id = row and row.job_id  # None before the first tick
        schedules.append(
            {
                "name": schedule.name,
                "cron": schedule.cron,
                "kind": schedule.kind,
                "last_tick": row.last_tick if job_id else None,
                "last_job": job_id,
                "next_tick": schedule.next(row.last_tick if row else now),
            }
        )
    leader = {
        "host": lease.host,
        "instance": lease.holder,
        "since": lease.since,
        "until": lease.until,
    }
    return {
        "leader": leader if lease.until > now else None,
        "epoch": lease.epoch,
        "schedules": schedules,
    }
