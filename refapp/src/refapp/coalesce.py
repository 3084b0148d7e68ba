"""Coalescing: of all who ask for the same at the same time one works, the others get its result.

The threads of a process wait for one of them. Of the processes on all hosts one holds a lease in
Redis, and the others wait for the result that it leaves there. A holder that dies is replaced
when its lease ends; without Redis each process works for itself.
"""

import contextlib
import json
import threading
import time
import uuid
from concurrent.futures import Future

from .extensions import redis
from .metrics import SHARED
from .redis import AwayError

JOIN = 0.5  # seconds for which work that has begun takes more askers in its process
# Seconds after which a holder that has not delivered is replaced: longer than a statement may take.
LEASE = 2.2
# Seconds that a process waits for others before it works itself; a balancer waits for 3.
PATIENCE = 2.5
RESULT_TTL = 3.0  # seconds; longer than between two looks of the most patient
PAUSES = (0.005, 0.01, 0.02, 0.04)  # seconds between looks; the last one goes on

# The result of the holder that one waited for; else who holds the lease now: the asker, if free.
LOOK = """
local result = redis.call('GET', KEYS[2])
if result then return {result, ''} end
local holder = redis.call('GET', KEYS[1])
if holder then return {false, holder} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {false, ARGV[1]}
"""
# Leave a result, if there is one, and free the lease unless another has it by now.
LEAVE = """
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class Flights:
    """The work that is under way in this process, by name."""

    def __init__(self):
        self._flights = {}
        self._lock = threading.Lock()

    def share(self, name, work):
        """Return work(), or what it returns to another who asked under this name just before.

        The result must be JSON. An exception is for the askers of one process; others try again.
        """
        with self._lock:
            until, result = self._flights.get(name, (0, None))
            pilot = until < time.monotonic()
            if pilot:
                until, result = time.monotonic() + JOIN, Future()
                self._flights[name] = until, result
        if not pilot:
            SHARED.labels("process").inc()
            return result.result()
        try:
            result.set_result(across_hosts(name, work))
        except BaseException as error:
            result.set_exception(error)
        finally:
            with self._lock:
                if self._flights.get(name, (0, None))[1] is result:
                    del self._flights[name]
        return result.result()


def across_hosts(name, work):
    """Return work(), or its result from the process that holds the lease."""
    mine = holder = uuid.uuid4().hex
    deadline = time.monotonic() + PATIENCE
    pauses = iter(PAUSES)
    pause = 0
    while time.monotonic() < deadline:
        try:
            found, holder = look(name, holder, mine)
        except AwayError:
            break
        if found:
            SHARED.labels("fleet").inc()
            return json.loads(found)
        if holder == mine:
            return deliver(name, mine, work)
        pause = next(pauses, pause)
        time.sleep(pause)
    return work()


def look(name, holder, mine):
    """Return the result of a holder, if it is there, and who holds the lease now."""
    keys = lease_key(name), result_key(holder)
    return redis.run(lambda client: client.eval(LOOK, 2, *keys, mine, int(LEASE * 1000)))


def deliver(name, mine, work):
    """Return work(), and leave it for who waits; after a failure the next one may try at once."""
    text = ""
    try:
        result = work()
        text = json.dumps(result)
        return result
    finally:
        keys = lease_key(name), result_key(mine)
        with contextlib.suppress(AwayError):
            ttl = int(RESULT_TTL * 1000)
            redis.run(lambda client: client.eval(LEAVE, 2, *keys, mine, text, ttl))


def lease_key(name):
    """Return the key that says who works under a name."""
    return f"refapp:flight:{name}"


def result_key(holder):
    """Return the key of what a holder found."""
    return f"refapp:flight-result:{holder}"


flights = Flights()
