"""gunicorn's settings: `gunicorn --config python:refapp.gunicorn refapp.wsgi:app`.

Sockets come from systemd (LISTEN_FDS): the type's port and the instance's probe socket.
"""

import contextlib
import json
import os
import shutil
import tempfile

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers import gthread

# Workers count in files that /metrics adds up. A directory for this master alone, because on
# a deploy two of them run side by side; in RAM where systemd gives us such a place.
_runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or None
_metrics = tempfile.mkdtemp(prefix="refapp-metrics-", dir=_runtime)
os.environ["PROMETHEUS_MULTIPROC_DIR"] = _metrics

# For `gunicornc`, which scales workers live; one for each release that runs.
_name = f"gunicorn-{os.environ.get('APP_PROCESS', 'web')}-{os.environ.get('APP_RELEASE', 'dev')}"
control_socket = os.path.join(_runtime or _metrics, f"{_name}.ctl")

worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY") or len(os.sched_getaffinity(0)))
# Told to the workers, who share what the host has.
os.environ["WEB_CONCURRENCY"] = str(workers)
# Of which three quarters may wait for the database (db.py): the others answer /livez.
threads = 32

# Longer than the balancers keep an idle connection (3 s): the side that sends requests must
# be the one that closes, or a request meets a closing connection.
keepalive = 75
# For the same reason a stopping worker must outwait them: it answers what still arrives on a
# kept connection, with "Connection: close". gunicorn waits 2 s and has no setting for it.
gthread.STOP_KEEPALIVE_LINGER = 4.0


class Connection(gthread.TConn):
    """A connection whose socket may be closed already, as that of a WebSocket is."""

    def close(self, graceful=False):
        """Close it. gunicorn counts one twice that fails: a stopping worker then leaves early."""
        with contextlib.suppress(OSError):
            super().close(graceful)


gthread.TConn = Connection


class Letter(bytearray):
    """What is sent, kept together."""

    sendall = bytearray.extend


class Response(wsgi.Response):
    """An answer whose head leaves with the first bytes of its body, not before them.

    A balancer repeats a request whose worker was killed, unless the client has the head already.
    """

    def write(self, data):
        """Send a piece of the body."""
        if self.headers_sent:
            super().write(data)
            return
        wire, self.sock = self.sock, Letter()
        try:
            super().write(data)
        finally:
            letter, self.sock = self.sock, wire
        wire.sendall(letter)


wsgi.Response = Response
# A worker whose main loop hangs is killed; requests have shorter limits of their own.
timeout = 30
# Longer than the longest request, shorter than the unit's stop timeout.
graceful_timeout = 25
# Heartbeat files; on a disk a write can block the loop that must beat.
_memory = "/dev/shm"  # noqa: S108  gunicorn makes its files there with mkstemp
worker_tmp_dir = _memory if os.access(_memory, os.W_OK) else None

# What a request may bring is bounded by the balancer (16 KiB a line, 64 KiB in all): whatever it
# lets through is answered by the application. gunicorn's own bound for the first line ends at
# 8190, beyond that it knows none (0). HTTP/2 joins the lines of a cookie.
limit_request_line = 0
limit_request_field_size = 2**16
limit_request_fields = 1000


def write_error(sock, status, reason, message):
    """Answer what is not HTTP as the application answers errors; gunicorn would write HTML."""
    problem = {"type": "about:blank", "title": reason, "status": status, "request_id": ""}
    body = json.dumps(problem)
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(sock, (head + body).encode("latin1"))


util.write_error = write_error

# X-Forwarded-* are read by the app's ProxyFix, which knows how many hops there are.
forwarded_allow_ips = ""
# refapp logs each request itself, with its id and user. These are the master's loggers: a
# worker hands its own to the queue (logs.py).
accesslog = None
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "refapp.logs.JSONFormatter"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stderr",
            "formatter": "json",
        }
    },
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["stderr"], "propagate": False},
        # They tell of each of their parts when they are imported.
        "alembic": {"level": "WARNING"},
        "procrastinate": {"level": "WARNING"},
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
}


def on_starting(server):
    """Import what workers need before they are forked: a new one then starts in a moment.

    A fleet whose workers die all the time would do little else. The app itself is made by each
    worker: its threads and connections do not survive a fork.
    """
    from . import factory  # noqa: F401


def child_exit(server, worker):
    """Drop the gauges of a worker that is gone."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def post_worker_init(worker):
    """Let what runs for long know that its worker is stopping."""
    from . import pool

    pool.stopping = lambda: not worker.alive


def worker_exit(server, worker):
    """Finish what a stopping worker still owes the caches."""
    from .extensions import edge

    edge.flush()


def on_exit(server):
    """Leave nothing behind."""
    shutil.rmtree(_metrics, ignore_errors=True)
