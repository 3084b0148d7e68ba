"""The sum of an item's sales, found in one of three ways: plain, coalesced or cached.

`plain` asks the database each time. `coalesced` lets those who ask at the same time share one
query. `cached`, the default, keeps the result in Redis as well.

A key holds a total, or a tombstone that a write left, or nothing. A reader that missed stores
its total only if the key is still as it was when it missed: one that summed before a write
was committed finds the write's tombstone, or what another reader stored after it. For the same
reason readers share a query only if they saw the same tombstone. What was never sold is not
kept: anyone can think of more items than Redis can hold.
"""

import contextlib
import json
import random
import uuid

import sqlalchemy as sa

from .coalesce import flights
from .extensions import db, redis
from .metrics import TOTALS
from .models import Sale
from .owed import Owed
from .redis import AwayError

TTL = 30  # seconds; with up to a fifth of jitter, so that keys do not end together
TOMBSTONE = "!"
TOMBSTONE_TTL = 60  # longer than a statement may take
STORE = """
local now = redis.call('GET', KEYS[1]) or ''
if now ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


def get(item, way="cached"):
    """Return the total of an item; without Redis a process still shares its queries."""
    if way == "plain":
        return query(item)
    try:
        seen = look(item)
    except AwayError:
        seen = None
    if way == "cached" and is_total(seen):
        TOTALS.labels("cache").inc()
        return json.loads(seen)
    work = fill if way == "cached" and seen is not None else query
    if db.failing:
        # The database limits how many threads may wait for it; here they all would.
        return work(item)
    version = "" if is_total(seen) else seen
    return flights.share(f"{way}:{item}:{version}", lambda: work(item))


def look(item):
    """Return what the key of an item holds, "" for nothing."""
    return redis.run(lambda client: client.get(key(item))) or ""


def is_total(seen):
    """Return whether a key's content is a total."""
    return bool(seen) and not seen.startswith(TOMBSTONE)


def fill(item):
    """Return the total of an item, and keep it."""
    try:
        seen = look(item)
    except AwayError:
        return query(item)
    # Another one may have filled it since this one looked.
    if is_total(seen):
        return json.loads(seen)
    found = query(item)
    if found["count"]:
        store(item, seen, found)
    return found


def query(item):
    """Return the total of an item from the database."""
    TOTALS.labels("database").inc()
    wanted = sa.select(
        sa.func.count().label("count"), sa.func.coalesce(sa.func.sum(Sale.amount), 0).label("total")
    ).where(Sale.item == item)
    row = db.run(lambda session: session.execute(wanted).one(), idempotent=True)
    return {"item": item, "count": row.count, "total": int(row.total)}


def store(item, seen, found):
    """Keep a total, unless the key changed since `seen`."""
    ttl = int(TTL * 1000 * random.uniform(0.8, 1))  # noqa: S311  not for secrets
    with contextlib.suppress(AwayError):
        redis.run(lambda client: client.eval(STORE, 1, key(item), seen, json.dumps(found), ttl))


def forget(item):
    """Make every process forget an item's total; a write calls it between commit and answer."""
    try:
        redis.run(lambda client: bury(client, item))
    except AwayError:
        owed.add(item)


def bury(client, item):
    """Replace the total by a tombstone of its own."""
    client.set(key(item), TOMBSTONE + uuid.uuid4().hex, ex=TOMBSTONE_TTL)


def key(item):
    """Return the key of an item's total."""
    return f"refapp:total:{item}"


owed = Owed(lambda item: redis.insist(lambda client: bury(client, item)), TTL)
