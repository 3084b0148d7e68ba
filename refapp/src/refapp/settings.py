"""Runtime settings: declared here, kept in Redis, pushed to every process of the fleet.

A hash holds the values and a version; a stream wakes the processes, which then read the hash
whole. So a process that was away has only to read it once more.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import logs
from .redis import AwayError
from .streams import BEGINNING, Follower

log = logging.getLogger(__name__)

KEY = "refapp:settings"
CHANGES = "refapp:settings:changes"
VERSION = ":version"  # in the hash, where no setting can have its name
CHANGE = """
local version = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, '*', 'version', version)
return version
"""


@dataclass(frozen=True)
class Setting:
    """A setting: its type is its default's; `choices` or `longest` limit it."""

    description: str
    default: Any
    choices: tuple = ()
    longest: int = 200
    apply: Callable[[Any], None] = lambda value: None

    def problem(self, value):
        """Return what is wrong with a value, or None."""
        if type(value) is not type(self.default):
            return f"Not a {type(self.default).__name__}."
        if self.choices and value not in self.choices:
            return f"Must be one of: {', '.join(self.choices)}."
        if isinstance(value, str) and (len(value) > self.longest or not value.isprintable()):
            return f"Longer than {self.longest} characters, or not printable."
        return None


DECLARED = {
    "banner": Setting("Shown on every page; empty for none.", ""),
    "messages_open": Setting("Whether anyone but admins may send messages.", True),
    "log_level": Setting(
        "Least level that is logged.",
        "INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        apply=logs.set_level,
    ),
}


class Settings:
    """The values in effect in this process."""

    def init_app(self, app, redis):
        """Start with the defaults; connects nowhere."""
        self._redis = redis
        self._lock = threading.Lock()
        self.version = 0
        self._values = {name: setting.default for name, setting in DECLARED.items()}
        app.extensions["settings"] = self

    def __getitem__(self, name):
        return self._values[name]

    def start(self):
        """Follow changes from now on; every process of the fleet calls it once."""
        Follower(self._redis, CHANGES, self._begin, lambda entries: self.load()).start()

    def _begin(self):
        # The position first: a change between the two reads is then read twice, not never.
        last = self._redis.run(lambda client: client.xrevrange(CHANGES, count=1))
        self.load()
        return last[0][0] if last else BEGINNING

    def load(self):
        """Put into effect what Redis holds; what it doesn't is as declared."""
        # The follower and a request may come at once: who reads first must also be done first.
        with self._lock:
            stored = self._redis.run(lambda client: client.hgetall(KEY))
            for name, setting in DECLARED.items():
                value = self._read(setting, stored.get(name))
                if value != self._values[name]:
                    self._values[name] = value
                    setting.apply(value)
                    log.warning("setting changed", extra={"setting": name, "value": value})
            self.version = int(stored.get(VERSION, 0))

    @staticmethod
    def _read(setting, text):
        if text is None:
            return setting.default
        value = json.loads(text)
        # Another release may have declared it otherwise.
        return setting.default if setting.problem(value) else value

    def change(self, name, value):
        """Keep a value that has no problem() for the whole fleet; raises AwayError."""
        self._redis.replicated(
            lambda client: client.eval(CHANGE, 2, KEY, CHANGES, VERSION, name, json.dumps(value))
        )
        try:
            self.load()  # who changed it sees it at once
        except AwayError:
            log.warning("a change is kept, but not read back", extra={"setting": name})
