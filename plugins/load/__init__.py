"""A steady load on a site, and an account of every request that failed.

`python -m plugins.load --help` is the command. In Python:

    with running("https://10.87.0.100", ca=ca, gets=["/whoami"]) as load:
        deploy()
    assert load.report["failed"] == 0
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30
STOP_SECONDS = 60  # a frozen host holds a request for ten seconds at most


class Running:
    """A load in a process of its own, so that the caller's work cannot slow it down."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.report: dict[str, Any] = {}
        self.summary = ""

    def wait_started(self, seconds: float = START_SECONDS) -> None:
        """Return when every client has had its first answer."""
        limit = time.monotonic() + seconds
        while not (self._folder / "started").exists():
            if self._process.poll() is not None or time.monotonic() > limit:
                self.stop()
                raise RuntimeError(f"the load did not start:\n{self.summary}")
            time.sleep(0.05)

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code when the load has ended by itself."""
        return self._process.wait(seconds)

    def stop(self) -> dict[str, Any]:
        """End the load, let what is in flight finish, and return its report."""
        if not self.report:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=STOP_SECONDS)
            finally:
                self._process.kill()
                self.summary = (self._folder / "output").read_text()
            report = self._folder / "report.json"
            if not report.exists():
                raise RuntimeError(f"the load left no report:\n{self.summary}")
            self.report = json.loads(report.read_text())
        return self.report


@contextmanager
def running(
    *urls: str,
    gets: Iterable[str] = ("/",),
    ca: str | Path | None = None,
    sales_password: str | None = None,
    **options: Any,
) -> Iterator[Running]:
    """Run a load while the block runs; `options` are those of the command line."""
    arguments = [sys.executable, "-m", "plugins.load"]
    for url in urls:
        arguments += ["--url", url]
    for path in gets:
        arguments += ["--get", path]
    if ca:
        arguments += ["--ca", str(ca)]
    for name, value in {"while_pid": os.getpid(), **options}.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    environment = dict(os.environ)
    if sales_password is not None:
        environment["LOAD_PASSWORD"] = sales_password  # a command line is world-readable

    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        arguments += ["--report", str(folder / "report.json")]
        arguments += ["--started-file", str(folder / "started")]
        if "duration" not in options:
            arguments += ["--duration", "3600"]
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        load = Running(process, folder)
        try:
            load.wait_started()
            yield load
            load.stop()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
