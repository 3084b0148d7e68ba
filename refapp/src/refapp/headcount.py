"""How many users there are: one query in ten seconds for the whole fleet, whoever asks.

The lock is the pace: it is never given back, it ends by itself after PERIOD. Who gets it asks
the database; everyone else answers with the last figure, also while a new one is fetched.
"""

import contextlib
import json
import threading
import time

import sqlalchemy as sa
from marshmallow import Schema, fields

from . import presence
from .api import Blueprint
from .db import Unavailable
from .extensions import db, redis
from .metrics import USER_COUNTS
from .models import User, now
from .redis import AwayError

bp = Blueprint("headcount", __name__, description="How many users there are")

FIGURE = "refapp:users:count"
LOCK = "refapp:users:count:lock"
PERIOD = 10  # seconds
KEPT = 24 * 3600  # seconds that a figure is better than none
FIRST = 2.0  # seconds that a request waits for the very first figure


class CountOut(Schema):
    """Users, and since when that is known."""

    registered = fields.Integer(required=True)
    online = fields.Integer(
        required=True, allow_none=True, metadata={"description": "null while it can't be known."}
    )
    as_of = fields.DateTime(required=True, metadata={"description": "Of `registered`."})


class Figure:
    """The figure of the fleet, or of this process alone while Redis is away."""

    def __init__(self):
        self._lock = threading.Lock()
        self._known, self._next = None, 0.0

    def get(self):
        """Return the figure, not older than PERIOD while it can be renewed."""
        try:
            return self._shared()
        except AwayError:
            return self._own()

    def _shared(self):
        deadline = time.monotonic() + FIRST
        while time.monotonic() < deadline:
            mine, text = redis.run(ask)
            if mine or text:  # also for the moment when Redis does not answer
                self._next = time.monotonic() + PERIOD
            if text:
                self._known = json.loads(text)
            if mine:
                self._renew()
                redis.run(lambda client: client.set(FIGURE, json.dumps(self._known), ex=KEPT))
            if mine or text:
                return self._known
            time.sleep(0.05)
        raise Unavailable

    def _own(self):
        if not self._lock.acquire(blocking=self._known is None):
            return self._known
        try:
            if time.monotonic() > self._next:
                self._next = time.monotonic() + PERIOD
                self._renew()
        finally:
            self._lock.release()
        if self._known is None:
            raise Unavailable
        return self._known

    def _renew(self):
        try:
            self._known = query()
        except Unavailable:
            if self._known is None:  # nobody has any: the next one may try soon
                with contextlib.suppress(AwayError):
                    redis.run(lambda client: client.expire(LOCK, 1))
                raise


def ask(client):
    """Return whether it is ours to renew the figure, and the figure."""
    pipeline = client.pipeline()
    pipeline.set(LOCK, 1, nx=True, ex=PERIOD)
    pipeline.get(FIGURE)
    return pipeline.execute()


figure = Figure()


def query():
    """Count the users, and the queries that do so."""
    USER_COUNTS.inc()
    wanted = sa.select(sa.func.count()).select_from(User)
    found = db.run(lambda session: session.scalar(wanted), idempotent=True)
    return {"registered": found, "as_of": now().isoformat()}


@bp.route("/users/count")
@bp.response(200, CountOut)
@bp.problems(503)
def count():
    """Count users: registered, from the database, and online."""
    found = figure.get()
    try:
        online = presence.count()
    except AwayError:
        online = None
    answer = {**CountOut(only=["registered", "as_of"]).load(found), "online": online}
    return answer, 200, {"Cache-Control": "no-store"}
