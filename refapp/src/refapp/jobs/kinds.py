"""What jobs can do: a kind is a function with a schema for its arguments, and limits."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from marshmallow import Schema

KINDS = {}


class JobError(Exception):
    """A job failed for a reason that its owner may read."""


@dataclass(frozen=True)
class Kind:
    """A kind of job. Its work is called as work(run, **args) and returns its result, a dict."""

    name: str
    work: Callable
    schema: Schema
    # What must follow the effect outside of the database, as after(**args). May run twice.
    after: Callable
    requested: bool  # by users; others come from cron only
    time_limit: int  # seconds
    max_attempts: int
    backoff: float  # seconds before the second attempt; doubles with each
    keep: timedelta  # how long a finished job is shown


def kind(
    name,
    schema,
    *,
    after=lambda **args: None,
    requested=True,
    time_limit=60,
    max_attempts=5,
    backoff=1.0,
    keep=timedelta(days=7),
):
    """Make a function the work of a kind of job."""

    def register(work):
        KINDS[name] = Kind(
            name, work, schema(), after, requested, time_limit, max_attempts, backoff, keep
        )
        return work

    return register
