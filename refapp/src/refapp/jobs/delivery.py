"""What a worker does with an entry of the queue: start the job, and settle how that ended."""

import asyncio
import logging
import random

import procrastinate
from procrastinate import exceptions, retry

from . import queue
from .executor import DiedError, TimeLimitError
from .run import Order
from .work import KINDS

log = logging.getLogger(__name__)

LONGEST = 300.0  # seconds between two attempts, at most
SLOW = 15.0  # ... until the second attempt after a statement that took too long; doubles with each
AWAY = 2.0  # seconds until a job is tried again that missed a service; no failure of its own
UNKNOWN = 5.0  # ... until a release may have it that knows its kind

# Of jobs that are done, their entry may have been lost before what follows the effect.
START = """
UPDATE jobs
SET starts = starts + 1,
    host = %(host)s,
    started_at = CASE WHEN state = 'done' OR expires_at <= now() THEN started_at ELSE now() END,
    finished_at = CASE WHEN state = 'done' THEN finished_at
                       WHEN expires_at <= now() THEN now() END,
    state = CASE WHEN state = 'done' THEN 'done'
                 WHEN expires_at <= now() THEN 'expired'
                 ELSE 'running' END
WHERE id = %(job)s AND delivery = %(delivery)s AND state IN ('queued', 'running', 'done')
RETURNING id::text AS job, user_id, kind, args, starts AS start, failures, time_limit, state
"""
FAIL = """
UPDATE jobs
SET failures = failures + 1,
    error = %(error)s,
    run_at = now() + make_interval(secs => %(pause)s),
    finished_at = CASE WHEN failures + 1 >= max_attempts THEN now() END,
    state = CASE WHEN failures + 1 >= max_attempts THEN 'dead' ELSE 'queued' END
WHERE id = %(job)s AND delivery = %(delivery)s AND starts = %(start)s AND state = 'running'
RETURNING state
"""
HAND_BACK = """
UPDATE jobs
SET state = 'queued', message = %(message)s
WHERE id = %(job)s AND delivery = %(delivery)s AND starts = %(start)s AND state = 'running'
RETURNING state
"""


class Again(Exception):  # noqa: N818  not an error: it tells the queue when to deliver again
    """The entry stays in the queue, and is due again in some seconds."""

    def __init__(self, seconds):
        super().__init__(seconds)
        self.seconds = seconds


class Always(retry.BaseRetryStrategy):
    """Keeps every entry in the queue that did not end well: jobs.state says when it is enough."""

    def get_retry_decision(self, *, exception, job):
        """Return when to deliver again."""
        pause = getattr(exception, "seconds", 1.0)
        return procrastinate.RetryDecision(retry_in={"seconds": pause})


class Delivery:
    """Runs the entries that one worker gets."""

    def __init__(self, app, executor, host):
        self._database, self._executor, self._host = app.connector, executor, host
        app.task(name=queue.TASK, queue=queue.QUEUE, pass_context=True, retry=Always())(self.run)

    async def run(self, context, job, kind):
        """Run a job once; return when its entry has done its duty, raise Again when not."""
        if kind not in KINDS:
            log.warning("unknown kind of job", extra={"job": job, "kind": kind})
            raise Again(UNKNOWN)
        mine = {"job": job, "delivery": context.job.id}
        started = await self._one(START, **mine, host=self._host)
        if started is None:
            return  # settled, or another entry's by now
        state = started.pop("state")
        if state == "expired":
            log.info("job expired", extra={"job": job, "kind": kind})
            return
        order = Order(**started, committed=state == "done")
        mine["start"] = order.start
        try:
            outcome, why = await self._executor.perform(order)
        except (TimeLimitError, DiedError) as error:
            outcome, why = "failed", str(error)
        except asyncio.CancelledError:
            # The worker stops, and its grace is over: this costs the job no attempt.
            await self._one(HAND_BACK, **mine, message="handed back")
            log.info("job handed back", extra={"job": job, "kind": kind})
            raise Again(0) from None
        log.info("job ended", extra={"job": job, "kind": kind, "outcome": outcome, "why": why})
        if outcome == "away":
            await self._one(HAND_BACK, **mine, message=f"waits: {why}")
            raise Again(AWAY)
        if outcome in ("failed", "slow"):
            # A database that is slow for a minute or two must not cost a job all its attempts.
            first = SLOW if outcome == "slow" else KINDS[kind].backoff
            pause = backoff(first, order.failures)
            failed = await self._one(FAIL, **mine, error=why, pause=pause)
            if failed is None:  # its effect is there, but what follows that was cut off
                raise Again(AWAY)
            if failed["state"] == "queued":
                raise Again(pause)

    async def _one(self, query, **values):
        try:
            return await self._database.execute_query_one_async(query, **values)
        except exceptions.NoResult:
            return None


def backoff(first, failures):
    """Return seconds until the next attempt: doubled each time, with a fifth of jitter."""
    return min(first * 2**failures, LONGEST) * random.uniform(0.8, 1.2)  # noqa: S311
