"""JSON logs on stderr, a line a request; a slow reader of them never slows a request."""

import json
import logging
import re
import sys
import threading
import time
import uuid
from datetime import UTC, datetime

from flask import g, has_request_context, request

from .log_queue import Descriptor, DroppingQueueHandler
from .redact import redact

log = logging.getLogger(__name__)
access = logging.getLogger("refapp.access")

# All that the balancer lets through: it keeps the same one in its log and in the answer.
REQUEST_ID = re.compile(r"[A-Za-z0-9._=-]{1,128}\Z")
queued = None  # the handler of every logger, once configured
# At DEBUG botocore and its HTTP client say more than they should.
CHATTER = ("botocore", "urllib3", "alembic.runtime.plugins", "procrastinate")
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
        elif record.exc_text:
            line["exception"] = record.exc_text
        return redact(json.dumps(line, default=str))


class RequestFilter(logging.Filter):
    """Adds the request's id and user to what any logger says during it."""

    def filter(self, record):
        """Let every record pass."""
        if has_request_context():
            for field, name in (("request_id", "request_id"), ("user", "username")):
                if name in g and not hasattr(record, field):
                    setattr(record, field, g.get(name))
        return True


def init_app(app):
    """Log as JSON, and every request once."""
    config = app.config
    redact.know(
        [
            config["SECRET_KEY"],
            config["REDIS_PASSWORD"],
            config["S3_SECRET_KEY"],
            *config["JWT_KEYS"].values(),
        ]
    )
    configure()
    app.before_request(start)
    app.after_request(finish)


def configure():
    """Send what any logger of this process says to stderr, through a thread."""
    global queued
    if queued is not None:
        return
    out = Descriptor(sys.__stderr__.fileno())
    out.setFormatter(JSONFormatter())
    queued = DroppingQueueHandler(out)
    queued.addFilter(RequestFilter())
    root = logging.getLogger()
    root.handlers = [queued]
    root.setLevel(logging.INFO)
    # gunicorn's and others' own handlers write without the queue.
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
    # It would say each request again, with its query. `accesslog = None` does not stop it.
    logging.getLogger("gunicorn.access").disabled = True
    for name in CHATTER:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = lambda *error: log.critical("uncaught exception", exc_info=error)
    threading.excepthook = lambda hook: log.error(
        "uncaught exception of a thread",
        exc_info=(hook.exc_type, hook.exc_value, hook.exc_traceback),
    )


def set_level(level):
    """Log from this level on, in this process; what is chatter stays quiet."""
    for name in (None, "gunicorn.error"):  # gunicorn's has a level of its own
        logging.getLogger(name).setLevel(level)
    for name in CHATTER:
        logging.getLogger(name).setLevel(max(logging.getLogger().level, logging.WARNING))


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
