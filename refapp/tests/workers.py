"""Worker and cron processes of tests: real ones, that may be killed and frozen."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time


class Process:
    """A process type of refapp, with what it said."""

    def __init__(self, environ, directory, name, *command, **changes):
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, *(command or ("-m", "refapp.worker"))],
                env=environ | {"APP_HOST": name, "APP_PROCESS": "worker", **changes},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def signal(self, number):
        self._process.send_signal(number)

    def freeze(self):
        """Stop it and its children, as a host that hangs does."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self):
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self):
        """Kill it alone, without a word; its children see to themselves."""
        self._process.kill()
        self._process.wait()

    def stop(self, seconds=30):
        """Stop it as systemd does; return its exit code."""
        self._process.terminate()
        return self._process.wait(seconds)

    def alive(self):
        return self._process.poll() is None

    def end(self):
        """Leave nothing of it behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self, message):
        """What it logged with a message."""
        return [line for line in self.lines() if line["message"] == message]


def eventually(check, seconds=30):
    """Return the first true answer of `check`."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.1)
    return answer
