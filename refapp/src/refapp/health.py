"""Whether the process lives, whether it can do its work, and who it is."""

import os
import threading
import time
from concurrent import futures

from flask import current_app, jsonify
from marshmallow import Schema, fields

from . import schema
from .api import Blueprint
from .extensions import db, redis, store

bp = Blueprint("health", __name__, description="Liveness, readiness, identity")

DEADLINE = 2.5  # for all checks together, they run at the same time
FRESH = 0.5  # seconds an answer is reused, so that many askers cost one check


class Live(Schema):
    """The process answers."""

    status = fields.Constant("live")


class Ready(Schema):
    """What was checked, and what is wrong with it."""

    status = fields.String(required=True)
    checks = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    not_ready = fields.List(fields.String(), required=True)
    host = fields.String(required=True)
    release = fields.String(required=True)


class Who(Schema):
    """The process that answered."""

    host = fields.String(required=True)
    pid = fields.Integer(required=True)
    release = fields.String(required=True)
    process = fields.String(required=True)
    instance = fields.String(required=True)


class Checks:
    """Runs the checks in threads of their own: one that hangs costs an asker DEADLINE at most."""

    def __init__(self, checks):
        self._checks = checks
        self._pool = futures.ThreadPoolExecutor(len(checks), thread_name_prefix="ready")
        self._running = {}
        self._lock = threading.Lock()
        self._result, self._until = None, 0.0

    def results(self):
        """Return "ok" or what is wrong, by check."""
        with self._lock:
            if self._until > time.monotonic():
                return self._result
            for name, check in self._checks.items():
                # One that still hangs from an earlier request is not started again.
                if name not in self._running:
                    self._running[name] = self._pool.submit(check)
            running = dict(self._running)
            futures.wait(running.values(), timeout=DEADLINE)
            result = {}
            for name, future in running.items():
                result[name] = self._outcome(future)
                if future.done():
                    del self._running[name]
            self._result, self._until = result, time.monotonic() + FRESH
            return result

    @staticmethod
    def _outcome(future):
        if not future.done():
            return "no answer in time"
        error = future.exception()
        # The kind of error only: messages name addresses and users.
        return "ok" if error is None else getattr(error, "reason", None) or type(error).__name__


def init_app(app):
    """Make the checks of this process."""
    app.extensions["checks"] = Checks(
        {"database": lambda: schema.check(db.engine), "redis": redis.check, "store": store.check}
    )


@bp.after_request
def never_stored(response):
    """Answers are about this process at this moment."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/livez")
@bp.response(200, Live)
@bp.problems()
def livez():
    """Whether this process answers; asks nothing of anyone."""
    return {}


@bp.route("/readyz")
@bp.response(200, Ready)
@bp.alt_response(503, schema=Ready, description="Not ready; `not_ready` says what.")
@bp.problems()
def readyz():
    """Whether the process can reach what it needs."""
    results = current_app.extensions["checks"].results()
    wrong = sorted(name for name, result in results.items() if result != "ok")
    body = {
        "status": "not ready" if wrong else "ready",
        "checks": results,
        "not_ready": wrong,
        "host": current_app.config["HOST"],
        "release": current_app.config["RELEASE"],
    }
    return jsonify(body), 503 if wrong else 200


@bp.route("/whoami")
@bp.response(200, Who)
@bp.problems()
def whoami():
    """Which process of which host and release answers."""
    config = current_app.config
    return {
        "host": config["HOST"],
        "pid": os.getpid(),
        "release": config["RELEASE"],
        "process": config["PROCESS"],
        "instance": config["INSTANCE"],
    }
