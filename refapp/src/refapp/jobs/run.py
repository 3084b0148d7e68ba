"""One start of a job, as its code sees it; runs in a child process of a worker."""

import logging
import signal
import time
import uuid
from dataclasses import dataclass

import sqlalchemy as sa
from werkzeug.exceptions import ServiceUnavailable

from ..db import TooSlow
from ..extensions import db, edge, settings
from ..factory import create_app
from ..models import Job
from ..redis import AwayError
from .kinds import JobError
from .work import KINDS

log = logging.getLogger(__name__)

PROGRESS = 0.5  # seconds between two reports of progress


class SupersededError(Exception):
    """The job was started anew elsewhere: this start may not have an effect any more."""


@dataclass(frozen=True)
class Order:
    """What a worker tells a child to do."""

    job: str
    user_id: uuid.UUID | None
    kind: str
    args: dict
    start: int
    failures: int
    time_limit: int  # seconds
    committed: bool  # its effect is in the database; only what follows is to be done


class Run:
    """What a job's code may ask and tell."""

    def __init__(self, order):
        self.user_id, self.start, self.failures = order.user_id, order.start, order.failures
        self._mine = sa.and_(Job.id == order.job, Job.starts == order.start)
        self._reported = 0.0
        self._result = None
        self.committed = False

    def progress(self, done, total, message=None):
        """Show how far it is; cheap enough for every round of a loop."""
        if time.monotonic() - self._reported < PROGRESS:
            return
        self._reported = time.monotonic()
        percent = min(100, int(100 * done / total)) if total else 0
        change = sa.update(Job).where(self._mine).values(progress=percent, message=message)
        db.run(lambda session: session.execute(change), idempotent=True)

    def commit(self, effect):
        """Return effect(session), committed together with the job's end: both or neither.

        Raises SupersededError when another start has taken the job over.
        """

        def work(session):
            wanted = sa.select(Job).where(self._mine).with_for_update()
            job = session.scalar(wanted)
            if job is None:
                raise SupersededError
            if job.state != "done":  # else a commit whose answer was lost, repeated
                job.result = effect(session)
                job.state, job.progress, job.message, job.error = "done", 100, None, None
                job.finished_at = sa.func.now()
            return job.result

        self._result = db.run(work, idempotent=True)
        self.committed = True
        return self._result


def perform(order):
    """Do what is ordered; return how it ended, and why."""
    kind, run = KINDS[order.kind], Run(order)
    try:
        args = kind.schema.load(order.args)
        if not order.committed:
            result = kind.work(run, **args)
            if not run.committed:
                run.commit(lambda session: result)
        kind.after(**args)
    except SupersededError:
        return "superseded", None
    except TooSlow as error:  # as it may be each time
        return "slow", type(error).__name__
    except (ServiceUnavailable, AwayError) as error:
        return "away", type(error).__name__
    except JobError as error:
        return "failed", str(error)
    except Exception as error:
        # Messages of unforeseen errors name addresses and users: they are for the log.
        log.exception("job failed", extra={"job": order.job, "kind": order.kind})
        return "failed", type(error).__name__
    return "done", None


def main(pipe):
    """Perform what comes through a pipe until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    app = create_app({"DATABASE_POOL": "1"})
    settings.start()
    with app.app_context():
        while True:
            try:
                order = pipe.recv()
            except EOFError:
                edge.flush()
                return
            # Should the worker be gone by then: unhandled, so the kernel ends the process,
            # whatever it is doing.
            signal.setitimer(signal.ITIMER_REAL, order.time_limit + 1)
            outcome = perform(order)
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                pipe.send(outcome)
            except BrokenPipeError:
                return
