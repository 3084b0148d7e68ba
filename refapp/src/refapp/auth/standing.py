"""Whether a login still stands, asked of every access token and every session.

PostgreSQL knows; Redis remembers its answers, so that a request costs one GET. An answer that is
lost with Redis is asked for again, and while Redis is away each request asks PostgreSQL: logging
out holds in any case. A logout that Redis could not be told, or that a failover might undo, is told
again until it is sure; only when this process dies before may an older "yes" be believed, for YES
seconds at most.
"""

import contextlib
import uuid

import sqlalchemy as sa

from ..extensions import db, redis
from ..models import Login
from ..owed import Owed
from ..redis import AwayError

YES = 60  # seconds
ACCESS_SECONDS = 900  # how long an access token lasts
NO = ACCESS_SECONDS + 60  # longer than any token of the login; then it is only asked for again


def stands(login_id):
    """Return whether a login has neither ended nor expired."""
    known = None
    with contextlib.suppress(AwayError):
        known = redis.run(lambda client: client.get(key(login_id)))
    if known is None:
        known = ask(login_id)
        with contextlib.suppress(AwayError):
            # Unless it ended meanwhile: then that is there, and stays.
            seconds = YES if known == "yes" else NO
            redis.run(lambda client: client.set(key(login_id), known, ex=seconds, nx=True))
    return known == "yes"


def ask(login_id):
    """Return the database's answer."""
    return "yes" if those_that_stand([login_id]) else "no"


def those_that_stand(login_ids):
    """Return which of some logins stand, by one query: for who asks of many, now and then."""
    wanted = sa.select(Login.id).where(
        Login.id.in_([uuid.UUID(str(each)) for each in login_ids]),
        Login.ended_at.is_(None),
        Login.expires_at > sa.func.now(),
    )
    found = db.run(lambda session: session.scalars(wanted).all(), idempotent=True)
    return {str(each) for each in found}


def ended(login_ids):
    """Tell every process at once; called when the database has committed it."""
    try:
        announce(login_ids)
    except AwayError:
        owed.add(tuple(login_ids))


def announce(login_ids):
    """Write the new answers in one round trip; raises AwayError unless a failover keeps them."""

    def write(client):
        for login_id in login_ids:
            client.set(key(login_id), "no", ex=NO)

    # Others may use Redis although a command of this process has just failed.
    redis.replicated(write, insist=True)


owed = Owed(announce, YES)


def key(login_id):
    """Return the key of a login's answer."""
    return f"refapp:login:{login_id}"
