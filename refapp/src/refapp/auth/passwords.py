"""Passwords: argon2 hashes that grow stronger at the next login, and an answer that takes as
long for a name that nobody has."""

import logging

import argon2
import sqlalchemy as sa

from ..extensions import db
from ..models import User

log = logging.getLogger(__name__)

# OWASP's smaller profile: 16 threads may hash at once, 19 MiB each.
hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Verified when there is no such user, so that a wrong name takes as long as a wrong password.
NOBODY = hasher.hash("nobody's password")


def find(username, password):
    """Return the user who has this name and this password, or None."""
    wanted = sa.select(User).where(User.username == username)
    user = db.run(lambda session: session.scalar(wanted), idempotent=True)
    try:
        hasher.verify(user.password_hash if user else NOBODY, password)
    except argon2.exceptions.VerificationError:
        return None
    if user and hasher.check_needs_rehash(user.password_hash):
        rehash(user, password)
    return user


def rehash(user, password):
    """Keep the password under today's parameters, unless it was changed meanwhile."""
    change = (
        sa.update(User)
        .where(User.id == user.id, User.password_hash == user.password_hash)
        .values(password_hash=hasher.hash(password))
    )
    db.run(lambda session: session.execute(change), idempotent=True)
    log.info("password hashed anew", extra={"user": user.username})
