"""A web application and a worker, small enough to see through, to test the app role with."""

import json
import os
import signal
import time
from pathlib import Path


def seen():
    """Tell what this process sees of its host."""
    probes = {}
    release = f"/srv/tiny/releases/{os.environ['APP_RELEASE']}"
    for path in ("/srv/tiny/shared/x", "/srv/tiny/x", f"{release}/src/x", "/etc/x", "/usr/x"):
        try:
            Path(path).write_text("x")
            probes[path] = "written"
        except OSError as error:
            probes[path] = type(error).__name__
    status = Path("/proc/self/status").read_text()
    return {
        "release": os.environ["APP_RELEASE"],
        "host": os.environ["APP_HOST"],
        "port": os.environ["PORT"],
        "pid": os.getpid(),
        "master": os.getppid(),
        "uid": os.getuid(),
        "greeting": os.environ["TINY_GREETING"],
        "secret_length": len(os.environ["TINY_SECRET"]),
        "writes": probes,
        "homes": os.access("/root", os.R_OK) or bool(os.listdir("/home")),
        "no_new_privileges": "NoNewPrivs:\t1" in status,
        "capabilities": [s for s in status.splitlines() if s.startswith("CapBnd")],
    }


def application(environ, start_response):
    """Answer /readyz, /slow, and everything else with what the process sees."""
    if environ["PATH_INFO"] == "/readyz" and os.environ.get("TINY_BROKEN"):
        start_response("503 Service Unavailable", [])
        return [b"the database is on fire"]
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    body = json.dumps(seen()).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


def migrate():
    """Say where a migration runs."""
    print("migrated by", os.environ["APP_PROCESS"], len(os.environ["TINY_SECRET"]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: exit(0))
    while True:
        time.sleep(1)
