"""A bound on wrong passwords, counted in Redis for every host together.

Only what failed is counted, so a name that many clients log in with is never shut out by their
number. Attempts that run at the same moment may pass the bound by as many as there are threads.
Without Redis nothing is counted: for the seconds of a failover, argon2 alone slows a guesser.
"""

import contextlib
import hashlib
import ipaddress

from flask import request
from werkzeug.exceptions import TooManyRequests

from ..extensions import redis
from ..redis import AwayError

WINDOW = 60  # seconds
# A stranger who fails on purpose shuts out his own address long before the name's owner.
FOR_NAME_AND_ADDRESS = 10
FOR_ADDRESS = 300  # an office may share one
FOR_NAME = 100


def check(username):
    """Raise TooManyRequests, with the time to wait, when too much failed already."""
    limits = counters(username)

    def read(client):
        pipeline = client.pipeline(transaction=False)
        pipeline.mget(list(limits))
        for name in limits:
            pipeline.ttl(name)
        return pipeline.execute()

    with contextlib.suppress(AwayError):
        counts, *waits = redis.run(read)
        full = [
            wait
            for limit, count, wait in zip(limits.values(), counts, waits, strict=True)
            if int(count or 0) >= limit
        ]
        if full:
            raise TooManyRequests("Too many wrong passwords.", retry_after=max(1, *full))


def failed(username):
    """Count a wrong name or password."""

    def count(client):
        pipeline = client.pipeline()
        for name in counters(username):
            pipeline.set(name, 0, ex=WINDOW, nx=True)  # the first one starts the window
            pipeline.incr(name)
        pipeline.execute()

    with contextlib.suppress(AwayError):
        redis.run(count)


def succeeded(username):
    """Forgive the name its failures from this address."""
    pair, *_ = counters(username)
    with contextlib.suppress(AwayError):
        redis.run(lambda client: client.delete(pair))


def counters(username):
    """Return limits by the names of their counters; that of name and address is the first."""
    address = network(request.remote_addr)
    name = hashlib.sha256(username.encode()).hexdigest()[:32]  # any length, any character
    return {
        f"refapp:attempts:{name}:{address}": FOR_NAME_AND_ADDRESS,
        f"refapp:attempts:{address}": FOR_ADDRESS,
        f"refapp:attempts:{name}": FOR_NAME,
    }


def network(address):
    """Return what one client can't change: its IPv4 address, or its IPv6 network."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:  # the probe socket has no addresses
        return "local"
    if parsed.version == 6:
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)
