"""JSON logs on stdout, a line a request; a slow reader of them never slows a request."""

import atexit
import json
import logging
import logging.handlers
import queue
import re
import sys
import time
import uuid
from datetime import UTC, datetime

from flask import g, has_request_context, request

access = logging.getLogger("refapp.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """One JSON object a line; what `extra` holds becomes its fields."""

    def format(self, record):
        """Return the record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        line |= {k: v for k, v in vars(record).items() if k not in STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class RequestFilter(logging.Filter):
    """Adds the request's id to what any logger says during it."""

    def filter(self, record):
        """Let every record pass."""
        if has_request_context() and "request_id" in g and not hasattr(record, "request_id"):
            record.request_id = g.request_id
        return True


class DroppingQueueHandler(logging.handlers.QueueHandler):
    """Hands records to the writing thread; drops them when it is far behind, and counts that."""

    dropped = 0

    def prepare(self, record):
        """Return the record as it is: the formatter needs its fields and its exception."""
        return record

    def enqueue(self, record):
        """Never wait for room."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


def init_app(app):
    """Log as JSON, and every request once."""
    configure()
    app.before_request(start)
    app.after_request(finish)


def configure():
    """Send every logger of this process to stdout through a thread."""
    root = logging.getLogger()
    if any(isinstance(handler, DroppingQueueHandler) for handler in root.handlers):
        return
    records = queue.Queue(10_000)
    handler = DroppingQueueHandler(records)
    handler.addFilter(RequestFilter())
    out = logging.StreamHandler(sys.stdout)
    out.setFormatter(JSONFormatter())
    listener = logging.handlers.QueueListener(records, out)
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # Chatter; and at DEBUG botocore and its HTTP client say more than they should.
    for name in ("botocore", "urllib3", "alembic.runtime.plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)
    listener.start()
    atexit.register(listener.stop)


def set_level(level):
    """Log from this level on, in this process; what is chatter stays quiet."""
    for name in (None, "gunicorn.error"):  # gunicorn's has a level of its own
        logging.getLogger(name).setLevel(level)


def start():
    """Give the request an id: the balancer's, or one of our own."""
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.match(given) else uuid.uuid4().hex
    g.started = time.perf_counter()


def finish(response):
    """Log the request. Path only: a query may carry what must not be logged."""
    response.headers["X-Request-ID"] = g.request_id
    access.info(
        "request",
        extra={
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - g.started) * 1000, 2),
            "bytes": response.content_length,
            "user": g.get("username"),
            "client": request.remote_addr,
            "request_id": g.request_id,
        },
    )
    return response
