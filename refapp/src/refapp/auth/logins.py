"""Logins and their refresh tokens. A token is replaced when it is used; one that is used again
was stolen, or its thief was first: either way the login ends, with every token of it.

An impatient client, or a balancer that repeats a request on another host, uses a token twice as
well. What tells them from a thief is the Idempotency-Key of the first use, of which a hash is kept:
for GRACE seconds who repeats it gets the same successor. Without the key there is no second use.
"""

import hashlib
import uuid
from datetime import timedelta

import sqlalchemy as sa

from ..models import Login, User

GRACE = timedelta(seconds=30)
IDLE = timedelta(days=14)  # a login that is not used ends
LONGEST = timedelta(days=90)  # and one that is, too
# Replaced tokens that are remembered; a client in a loop gets no more.
KEPT = 16


def start(session, user):
    """Return a new login of a user; those of theirs that ended by themselves are cleared away."""
    now = clock(session)
    session.execute(sa.delete(Login).where(Login.user_id == user.id, Login.expires_at < now))
    login = Login(user_id=user.id, created_at=now, issued_at=now, expires_at=now + IDLE)
    session.add(login)
    session.flush()
    return login


def use(key):
    """Return what tells a use of a token from another: whoever has the key repeats the same one.

    Made once a request: one that is repeated because the answer to COMMIT got lost is no theft.
    """
    return hashlib.sha256((key or uuid.uuid4().hex).encode()).hexdigest()


def refresh(session, login_id, generation, used):
    """Return (login, user, whether the token was stolen); no login when it can't go on.

    The row stays locked until the end of the transaction: of two at the same time the second
    sees what the first did.
    """
    row = session.execute(
        sa.select(Login, User)
        .join(User, User.id == Login.user_id)
        .where(Login.id == login_id)
        .with_for_update(of=Login)
    ).first()
    if row is None:
        return None, None, False
    login, user = row
    now = clock(session)
    if login.ended_at or login.expires_at <= now:
        return None, user, False
    age = login.generation - generation
    if age == 0:
        replace(login, used, now)
    elif not repeated(login, age, used, now):
        login.ended_at = now
        return None, user, True
    return login, user, False


def replace(login, used, now):
    """Make the next token the one to be used."""
    login.replaced_at = [*login.replaced_at, now][-KEPT:]
    login.replaced_by = [*login.replaced_by, used][-KEPT:]
    login.generation += 1
    login.issued_at = now
    login.expires_at = min(now + IDLE, login.created_at + LONGEST)


def repeated(login, age, used, now):
    """Return whether the token of `age` replacements ago was replaced just now, by this use."""
    # The release before keeps no uses.
    known = min(len(login.replaced_at), len(login.replaced_by))
    return (
        0 < age <= known
        and login.replaced_by[-age] == used
        and login.replaced_at[-age] > now - GRACE
    )


def end(session, login_id):
    """End a login; may be repeated."""
    change = sa.update(Login).where(Login.id == login_id, Login.ended_at.is_(None))
    session.execute(change.values(ended_at=sa.func.now()))


def end_all(session, user_id):
    """End every login of a user, and return their ids."""
    change = sa.update(Login).where(Login.user_id == user_id, Login.ended_at.is_(None))
    return session.scalars(change.values(ended_at=sa.func.now()).returning(Login.id)).all()


def clock(session):
    """Return the database's time: those of the hosts may differ."""
    return session.scalar(sa.select(sa.func.clock_timestamp()))
