"""The leader's lease, and the ticks that its holder enqueues in the transaction that renews it."""

import logging
import uuid
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ..jobs import queue
from ..models import CronLease, CronSchedule, CronTick

log = logging.getLogger(__name__)

LEASE = 6  # seconds that a leader may be silent before another takes over
STEP = 1.0  # seconds between two steps

# Renewing locks the row until the commit: while a leader enqueues nobody can take over, and one
# that was frozen since its last step finds another holder here before it can do anything.
RENEW = """
UPDATE cron_lease
SET epoch = CASE holder WHEN :holder THEN epoch ELSE epoch + 1 END,
    since = CASE holder WHEN :holder THEN since ELSE now() END,
    holder = :holder, host = :host, until = now() + make_interval(secs => :lease)
WHERE id = 1 AND (holder = :holder OR until < now())
RETURNING epoch, now() AS now
"""


class Ticker:
    """One process that may lead; any number of them may try."""

    def __init__(self, db, host, schedules):
        self._db, self._host, self._schedules = db, host, schedules
        # New in each process: nobody is ever taken for a holder that is gone.
        self._holder = uuid.uuid4().hex
        self._epoch = None

    def step(self):
        """Renew the lease, or take it when it has run out, and enqueue what is due; else nothing.

        Raises db.Unavailable when the database is away.
        """
        # Safe to repeat: ticks that were enqueued are not due any more.
        epoch = self._db.run(self._step, idempotent=True)
        if epoch != self._epoch:
            log.info("leads" if epoch else "follows", extra={"epoch": epoch})
            self._epoch = epoch

    def resign(self):
        """Let another lead at once."""
        done = sa.update(CronLease).where(CronLease.holder == self._holder)
        past = sa.func.now() - timedelta(seconds=1)
        self._db.run(lambda session: session.execute(done.values(until=past)), idempotent=True)

    def _step(self, session):
        values = {"holder": self._holder, "host": self._host, "lease": LEASE}
        lease = session.execute(sa.text(RENEW), values).first()
        if lease is None:
            return None
        for schedule in self._schedules:
            self._enqueue_due(session, schedule, lease)
        return lease.epoch

    def _enqueue_due(self, session, schedule, lease):
        mine = CronSchedule.name == schedule.name
        last = session.scalar(sa.select(CronSchedule.last_tick).where(mine))
        if last is None:  # a new schedule starts now
            session.execute(insert(CronSchedule).values(name=schedule.name, last_tick=lease.now))
            return
        # Older ones have expired.
        last = max(last, lease.now - timedelta(seconds=schedule.ttl))
        ticks = schedule.between(last, lease.now)
        for tick in ticks:
            job = queue.describe(schedule.kind, {}, priority=schedule.priority)
            job.run_at, job.expires_at = tick, tick + timedelta(seconds=schedule.ttl)
            queue.enqueue(session, job)
            values = {"name": schedule.name, "tick": tick, "job_id": job.id}
            session.execute(
                sa.insert(CronTick).values(values | {"epoch": lease.epoch, "host": self._host})
            )
        if ticks:
            session.execute(sa.update(CronSchedule).where(mine).values(last_tick=ticks[-1]))
