"""Purge of the edge caches after a write: quick, repeated until done, never the write's failure."""

import http.client
import logging
import threading
import time
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

TIMEOUT = 0.3
REST = 2.0  # seconds that a cache which failed is left to the background
# An answer that left this app before the write may reach the cache after the first purge.
SECOND = 0.5
GIVE_UP = 60.0  # the answers' own lifetime at the edge is shorter than this


class Edge:
    """The cache hosts in front of the app."""

    def init_app(self, app):
        """Keep the addresses; the background thread starts with the first purge."""
        self._servers = [urlsplit(url) for url in app.config["PURGE_URLS"]]
        self._resting = {}
        self._due = {}  # (server, path) -> (when, give up when)
        self._condition = threading.Condition()
        self._thread = None
        app.extensions["edge"] = self

    def purge(self, path):
        """Purge a path now where that is possible, and again from the background."""
        now = time.monotonic()
        for server in self._servers:
            when = now + SECOND
            if self._resting.get(server, 0) > now or not self._purge(server, path):
                when = now + 0.1
            with self._condition:
                self._due[server, path] = (when, now + GIVE_UP)
        if self._servers:
            self._wake()

    def _wake(self):
        with self._condition:
            if self._thread is None:  # not in init_app: threads do not survive a fork
                self._thread = threading.Thread(target=self._run, name="edge", daemon=True)
                self._thread.start()
            self._condition.notify()

    def flush(self):
        """Do what is due, once; called when the process stops."""
        with self._condition:
            due, self._due = self._due, {}
        for server, path in due:
            if self._resting.get(server, 0) <= time.monotonic():
                self._purge(server, path)

    def _run(self):
        while True:
            with self._condition:
                first = min((when for when, _ in self._due.values()), default=None)
                pause = None if first is None else first - time.monotonic()
                if pause is None or pause > 0:
                    self._condition.wait(pause)
                    continue
                now = time.monotonic()
                ready = [(k, v) for k, v in self._due.items() if v[0] <= now]
                for key, _ in ready:
                    del self._due[key]
            for (server, path), (_, give_up) in ready:
                now = time.monotonic()
                resting = self._resting.get(server, 0)
                if resting <= now and self._purge(server, path):
                    continue
                if now < give_up:
                    again = max(self._resting.get(server, 0), now + 0.1)
                    with self._condition:  # a newer purge of the same path stands
                        self._due.setdefault((server, path), (again, give_up))
                else:
                    log.warning("gave up a purge", extra={"cache": server.netloc, "path": path})

    def _purge(self, server, path):
        connection = http.client.HTTPConnection(server.hostname, server.port, timeout=TIMEOUT)
        try:
            connection.request("PURGE", path)
            status = connection.getresponse().status
            # 404 and 412 are the answers for what was not in the cache.
            if status < 300 or status in (404, 412):
                return True
            log.warning("purge refused", extra={"cache": server.netloc, "status": status})
        except (OSError, http.client.HTTPException) as error:
            log.warning("purge failed", extra={"cache": server.netloc, "error": str(error)})
        finally:
            connection.close()
        self._resting[server] = time.monotonic() + REST
        return False
