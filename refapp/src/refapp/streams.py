"""Follow a Redis stream: what is added to it reaches every process, in order, without a gap.

Pub/sub would be as quick, but what is published while a connection is being made anew is
gone. A reader of a stream goes on from the last entry it had, whatever happened meanwhile.
"""

import logging
import threading
import time

from .redis import AwayError

log = logging.getLogger(__name__)

BLOCK = 150  # milliseconds a read waits for entries; far less than the connection's timeout
BATCH = 500
# Seconds between proofs that we follow the primary: one that was cut off, and replaced, goes
# on answering reads, and never has anything new.
PROVE = 1.0
PAUSE = 0.2  # seconds between attempts while Redis is away
BEGINNING = "0-0"


def number(entry_id):
    """Return an entry's id as something that can be compared."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def later(entry_id, other):
    """Return whether an entry comes after another."""
    return number(entry_id) > number(other)


class Follower:
    """Hands the entries of a stream to `deliver`, from a thread of its own.

    `begin()` is called at first, and whenever Redis was away; it returns the id to go on from,
    and may read what was missed. Neither may keep the thread for long.
    """

    def __init__(self, redis, stream, begin, deliver):
        self._redis, self._stream = redis, stream
        self._begin, self._deliver = begin, deliver

    def start(self):
        """Start the thread; it ends with the process."""
        name = f"follow {self._stream}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self):
        away = False
        while True:
            try:
                position = self._begin()
                self._prove()
                if away:
                    log.info("following again", extra={"stream": self._stream})
                away = False
                self._follow(position)
            except AwayError:
                if not away:
                    log.warning("Redis is away", extra={"stream": self._stream})
                away = True
            except Exception:  # the thread must outlive whatever it meets
                log.exception("following failed", extra={"stream": self._stream})
            time.sleep(PAUSE)

    def _follow(self, position):
        proved = time.monotonic()
        while True:
            entries = self._read(position)
            if entries or time.monotonic() - proved > PROVE:
                # Replication keeps the order: when a replica has this write, it has the
                # entries too, so nobody is told what a failover could take back.
                self._prove()
                proved = time.monotonic()
            if entries:
                self._deliver(entries)
                position = entries[-1][0]

    def _read(self, position):
        found = self._redis.run(
            lambda client: client.xread({self._stream: position}, count=BATCH, block=BLOCK)
        )
        [(_, entries)] = found or [(None, [])]
        return entries

    def _prove(self):
        self._redis.replicated(lambda client: client.set("refapp:followed", self._stream))
