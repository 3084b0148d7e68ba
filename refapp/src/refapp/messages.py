"""Messages: one stream in Redis that keeps the last thousands, each in it once, in order.

A message's `client_id` is its sender's name for it: what is sent again under the same one,
through whatever process, is not added again. The stream's ids are the order everywhere.
"""

import hashlib
from datetime import UTC, datetime

from marshmallow import Schema, fields, validate

from .extensions import redis
from .fields import Text
from .streams import BEGINNING, number

STREAM = "refapp:messages"
KEEP = 10_000  # messages; Redis trims in blocks, so up to a hundred more
REMEMBER = 3600  # seconds in which a message sent again is known; each costs 150 bytes
PAGE = 500  # messages read at a time
WINDOW = 60  # seconds
MOST = 3_000  # new messages of a user in it: to remember an hour of them takes below 100 MB
# What is known is written to again: a write that a replica confirms confirms the earlier one.
ADD = """
local known = redis.call('GET', KEYS[2])
if known then
  redis.call('EXPIRE', KEYS[2], ARGV[2])
  return known
end
if tonumber(redis.call('GET', KEYS[3]) or 0) >= tonumber(ARGV[5]) then
  return redis.call('TTL', KEYS[3])
end
redis.call('SET', KEYS[3], 0, 'EX', ARGV[4], 'NX')
redis.call('INCR', KEYS[3])
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 6))
redis.call('SET', KEYS[2], id .. ' ' .. ARGV[3], 'EX', ARGV[2])
return id
"""
CLIENT_ID = validate.Regexp(r"^[\x21-\x7e]{1,255}\Z", error="1 to 255 visible ASCII characters.")
TEXT = [
    validate.Length(1, 2000),
    Text(r"^[^\x00-\x08\x0b-\x1f\x7f]+\Z", error="Has control characters."),
]
POSITION = validate.Regexp(r"^[0-9]{1,15}-[0-9]{1,15}\Z", error="Not an id of a message.")


class TextIn(Schema):
    """What someone says."""

    text = fields.String(required=True, validate=TEXT)


class MessageOut(Schema):
    """A message as everyone gets it."""

    id = fields.String(required=True, metadata={"description": "Place in the order of all."})
    sender = fields.String(required=True)
    client_id = fields.String(required=True)
    text = fields.String(required=True)
    sent_at = fields.DateTime(required=True, format="iso")


class ReusedError(Exception):
    """The sender used this client_id for another message."""


class TooManyError(Exception):
    """The sender has said as much as anybody may, and has to wait for `retry_after` seconds."""

    def __init__(self, retry_after):
        super().__init__()
        self.retry_after = max(1, retry_after)


def add(user_id, sender, client_id, text):
    """Keep a message; return it and whether it was there already.

    Safe to repeat. Raises AwayError when it isn't known to be kept, ReusedError, TooManyError.
    """
    print_ = hashlib.sha256(text.encode()).hexdigest()[:16]
    values = {"sender": sender, "client_id": client_id, "text": text}
    flat = [word for pair in values.items() for word in pair]
    keys = [STREAM, f"refapp:sent:{user_id}:{client_id}", f"refapp:said:{user_id}"]
    bounds = [KEEP, REMEMBER, print_, WINDOW, MOST]
    answer = redis.replicated(lambda client: client.eval(ADD, len(keys), *keys, *bounds, *flat))
    if isinstance(answer, int):
        raise TooManyError(answer)
    entry_id, _, known = answer.partition(" ")
    if known and known != print_:
        raise ReusedError
    return message(entry_id, values), bool(known)


def message(entry_id, values):
    """Return a stream's entry as what MessageOut describes, ready for JSON."""
    at = datetime.fromtimestamp(number(entry_id)[0] / 1000, UTC)
    return {"id": entry_id, **values, "sent_at": at.isoformat(timespec="milliseconds")}


def after(position, until="+", count=PAGE):
    """Return up to `count` messages after a position, in order."""
    found = redis.run(lambda client: client.xrange(STREAM, f"({position}", until, count))
    return [message(*entry) for entry in found]


def latest(count):
    """Return the last messages, in order."""
    found = redis.run(lambda client: client.xrevrange(STREAM, count=count))
    return [message(*entry) for entry in reversed(found)]


def kept_since(position):
    """Return whether the stream still has everything that came after a position."""
    first = redis.run(lambda client: client.xrange(STREAM, count=1))
    if not first:
        return position == BEGINNING
    if position == BEGINNING:
        found = redis.run(lambda client: client.xinfo_stream(STREAM))
        return found["entries-added"] == found["length"]
    return number(first[0][0]) <= number(position)
