"""What enters the queue, always in the transaction of whoever asks for it."""

import uuid
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from ..models import OPEN, Job, now
from .work import KINDS

TASK = "refapp.job"  # the one task of the queue; a job's kind says what it does
QUEUE = "jobs"
# What Procrastinate's own `defer` executes. By our session: what the database refuses, a lock or
# more time, is then an error that db.run knows.
DELIVER = sa.text("""
SELECT (procrastinate_defer_jobs_v1(ARRAY[ROW(
    :queue, :task, :priority, NULL, NULL, :args, :due
)::procrastinate_job_to_defer_v1]))[1]
""").bindparams(
    sa.bindparam("args", type_=postgresql.JSONB),
    sa.bindparam("due", type_=sa.DateTime(timezone=True)),
)


def describe(kind, args, *, user_id=None, priority=0, delay=0, ttl=None, **limits):
    """Return a new job, not yet in the queue.

    `delay` and `ttl` are seconds from now; a job that was not started within its `ttl` never is.
    `limits` may be `time_limit`, in seconds, and `max_attempts`; its kind has defaults.
    """
    created_at = now()
    return Job(
        id=uuid.uuid4(),
        user_id=user_id,
        kind=kind,
        args=args,
        priority=priority,
        time_limit=limits.get("time_limit") or KINDS[kind].time_limit,
        max_attempts=limits.get("max_attempts") or KINDS[kind].max_attempts,
        run_at=created_at + timedelta(seconds=delay),
        expires_at=None if ttl is None else created_at + timedelta(seconds=ttl),
        created_at=created_at,
        state="queued",
        starts=0,
        failures=0,
        progress=0,
    )


def enqueue(session, job):
    """Put a job in the queue: accepted when, and only when, the session commits."""
    # Not the object itself: a transaction that is repeated needs it as it was.
    values = {name: value for name, value in vars(job).items() if not name.startswith("_")}
    session.execute(sa.insert(Job).values(values | {"delivery": deliver(session, job)}))


def count_open(session, user_id, most):
    """Return how many jobs of a user are queued or running; stops at `most`."""
    found = sa.select(Job.id).where(Job.user_id == user_id, OPEN).limit(most)
    return session.scalar(sa.select(sa.func.count()).select_from(found.subquery()))


def retry(session, job_id):
    """Give a dead job all its attempts again; return it, or None when it is not dead."""
    wanted = sa.select(Job).where(Job.id == job_id, Job.state == "dead").with_for_update()
    job = session.scalar(wanted)
    if job is None:
        return None
    job.state, job.failures, job.run_at = "queued", 0, now()
    # Whoever retries it wants it now, however old it is.
    job.finished_at = job.expires_at = None
    job.delivery = deliver(session, job)
    session.flush()
    return job


def deliver(session, job):
    """Make a queue entry for a job; return its id."""
    values = {
        "queue": QUEUE,
        "task": TASK,
        "priority": job.priority,
        "args": {"job": str(job.id), "kind": job.kind},
        "due": job.run_at if job.run_at > now() else None,
    }
    return session.scalar(DELIVER, values)
