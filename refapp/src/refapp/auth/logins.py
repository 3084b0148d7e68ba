"""Logins and their refresh tokens. A token is replaced when it is used; one that is used again
was stolen, or its thief was first: either way the login ends, with every token of it.

An impatient client, two of its tabs, or a balancer that repeats a request on another host use a
token twice as well. So for GRACE seconds a replaced token is answered again, with the same
successor: the token is its own idempotency key. A thief gains nothing by that window but the
successor that the owner has too, and the second of them to use that one ends the login.
"""

from datetime import timedelta

import sqlalchemy as sa

from ..models import Login, User

GRACE = timedelta(seconds=30)
IDLE = timedelta(days=14)  # a login that is not used ends
LONGEST = timedelta(days=90)  # and one that is, too
# Replaced tokens of the last GRACE that are remembered; a client in a loop gets no more.
KEPT = 16


def start(session, user):
    """Return a new login of a user; those of theirs that ended by themselves are cleared away."""
    now = clock(session)
    session.execute(sa.delete(Login).where(Login.user_id == user.id, Login.expires_at < now))
    login = Login(user_id=user.id, created_at=now, issued_at=now, expires_at=now + IDLE)
    session.add(login)
    session.flush()
    return login


def refresh(session, login_id, generation):
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
        replace(login, now)
    elif not forgiven(login, age, now):
        login.ended_at = now
        return None, user, True
    return login, user, False


def replace(login, now):
    """Make the next token the one to be used."""
    recent = [at for at in login.replaced_at if at > now - GRACE]
    login.replaced_at = [*recent, now][-KEPT:]
    login.generation += 1
    login.issued_at = now
    login.expires_at = min(now + IDLE, login.created_at + LONGEST)


def forgiven(login, age, now):
    """Return whether the token that was replaced `age` replacements ago was so just now."""
    return 0 < age <= len(login.replaced_at) and login.replaced_at[-age] > now - GRACE


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
