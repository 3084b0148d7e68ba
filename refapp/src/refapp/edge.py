"""Purge of the edge caches after a write: quick, repeated until done, never the write's failure."""

import http.client
import logging
import threading
import time
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

TIMEOUT = 0.3
AGAIN = 0.1  # seconds between two attempts from the background
REST = 2.0  # seconds that requests leave a cache which failed to the background
# An answer that left this app before the write may reach the cache after the first purge.
SECOND = 0.5
GIVE_UP = 60.0  # the answers' own lifetime at the edge is shorter than this


class Edge:
    """The cache hosts in front of the app."""

    def init_app(self, app):
        """Keep the addresses; the background threads start with the first purge."""
        self._caches = [Cache(url) for url in app.config["PURGE_URLS"]]
        app.extensions["edge"] = self

    def purge(self, path):
        """Purge a path now where that is possible, and again from the background."""
        for cache in self._caches:
            cache.purge(path)

    def flush(self):
        """Do what is due, once; called when the process stops."""
        for cache in self._caches:
            cache.flush()


@dataclass(frozen=True)
class Due:
    """A purge to be done: not before `when`, and again unless it was after `last`."""

    when: float
    last: float
    give_up: float


class Cache:
    """A cache host, and what it is still to be told; one that is slow delays no other."""

    def __init__(self, url):
        self._server = urlsplit(url)
        self._rest_until = 0.0
        self._due = {}  # by path
        self._condition = threading.Condition()
        self._thread = None

    def purge(self, path):
        """Purge a path now, unless the cache has just failed, and again from the background."""
        now = time.monotonic()
        done = now >= self._rest_until and self._ask(path)
        with self._condition:
            last = now + SECOND
            self._due[path] = Due(last if done else now, last, now + GIVE_UP)
            if self._thread is None:  # not in __init__: threads do not survive a fork
                self._thread = threading.Thread(target=self._run, name="edge", daemon=True)
                self._thread.start()
            self._condition.notify()

    def flush(self):
        """Do what is due, once."""
        with self._condition:
            paths, self._due = list(self._due), {}
        for path in paths:
            if time.monotonic() >= self._rest_until:
                self._ask(path)

    def _run(self):
        while True:
            path, due = self._next()
            now = time.monotonic()
            done = self._ask(path)
            self._settle(path, due, now, done)
            if not done:
                time.sleep(AGAIN)

    def _next(self):
        with self._condition:
            while True:
                path, due = min(
                    self._due.items(), key=lambda each: each[1].when, default=(None, None)
                )
                pause = due and due.when - time.monotonic()
                if due and pause <= 0:
                    return path, due
                self._condition.wait(pause)

    def _settle(self, path, due, asked, done):
        """Note what came of a purge, unless it was ordered anew meanwhile."""
        with self._condition:
            if self._due.get(path) is not due:
                return
            if done and asked < due.last:
                self._due[path] = replace(due, when=due.last)
            elif done or asked > due.give_up:
                del self._due[path]
            else:
                self._due[path] = replace(due, when=time.monotonic())  # after the others
        if not done and asked > due.give_up:
            log.warning("gave up a purge", extra={"cache": self._server.netloc, "path": path})

    def _ask(self, path):
        connection = http.client.HTTPConnection(
            self._server.hostname, self._server.port, timeout=TIMEOUT
        )
        try:
            connection.request("PURGE", path)
            status = connection.getresponse().status
            # 404 and 412 are the answers for what was not in the cache.
            if status < 300 or status in (404, 412):
                self._rest_until = 0.0
                return True
            self._failed({"status": status})
        except (OSError, http.client.HTTPException) as error:
            self._failed({"error": str(error)})
        finally:
            connection.close()
        return False

    def _failed(self, reason):
        # Said once, not at each of several attempts a second.
        if time.monotonic() >= self._rest_until:
            log.warning("purge failed", extra={"cache": self._server.netloc, **reason})
        self._rest_until = time.monotonic() + REST
