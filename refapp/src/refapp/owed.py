"""News that Redis could not be told yet: without them it would say for a while what is not true."""

import threading
import time

from .redis import AwayError

PAUSE = 0.2  # seconds between two attempts


class Owed:
    """Tells Redis as soon as it is back, in a thread that ends when all is told."""

    def __init__(self, tell, seconds):
        """Take tell(item), which raises AwayError, and for how long the news of an item matter."""
        self._tell = tell
        self._seconds = seconds
        self._items = {}
        self._lock = threading.Lock()
        self._thread = None

    def add(self, item):
        """Remember an item until Redis knows of it, or need not any more."""
        with self._lock:
            self._items[item] = time.monotonic() + self._seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._pay, name="owed", daemon=True)
                self._thread.start()

    def _pay(self):
        while True:
            time.sleep(PAUSE)
            with self._lock:
                if not self._items:
                    self._thread = None
                    return
                items = dict(self._items)
            for item, until in items.items():
                try:
                    self._tell(item)
                except AwayError:
                    if time.monotonic() < until:
                        break
                with self._lock:
                    if self._items.get(item) == until:
                        del self._items[item]
