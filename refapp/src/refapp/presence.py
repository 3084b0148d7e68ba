"""Who is online: users with a live connection, as the real-time processes report them."""

import contextlib

from .extensions import redis
from .redis import AwayError

ONLINE = "refapp:online"
LASTS = 30  # seconds that a report lasts; a process that dies takes its users along after it
# Redis's own clock, because the hosts' may differ.
REPORT = """
local now = redis.call('TIME')[1]
for _, user in ipairs(ARGV) do redis.call('ZADD', KEYS[1], now, user) end
"""
COUNT = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (redis.call('TIME')[1] - ARGV[1]))
return redis.call('ZCARD', KEYS[1])
"""


def report(users):
    """Say that these users are connected; to be repeated well within LASTS seconds."""
    if users:
        with contextlib.suppress(AwayError):
            redis.run(lambda client: client.eval(REPORT, 1, ONLINE, *users))


def count():
    """Return the number of users online; raises AwayError."""
    return redis.run(lambda client: client.eval(COUNT, 1, ONLINE, LASTS))
