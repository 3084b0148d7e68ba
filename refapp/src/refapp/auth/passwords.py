"""Passwords: argon2 hashes that grow stronger at the next login, and an answer that takes as
long for a name that nobody has."""

import logging
import threading

import argon2
import sqlalchemy as sa

from ..extensions import db
from ..models import User

log = logging.getLogger(__name__)


class Hasher(argon2.PasswordHasher):
    """Hashes in 16 threads at once at most: each takes 19 MiB, and most of a core."""

    _places = threading.BoundedSemaphore(16)

    def hash(self, *args, **options):
        """Return a new hash of a password."""
        with self._places:
            return super().hash(*args, **options)

    def verify(self, *args, **options):
        """Return True, or raise VerificationError."""
        with self._places:
            return super().verify(*args, **options)


# OWASP's smaller profile.
hasher = Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
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
