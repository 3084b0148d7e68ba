"""Subset sum: a computation that would hold a worker for seconds, so none does it itself."""

import json
import os
from pathlib import Path

from flask import Response, current_app, request
from marshmallow import Schema, ValidationError, fields, validate
from werkzeug.exceptions import TooManyRequests

from .api import Blueprint
from .pool import FullError, Pool

bp = Blueprint("compute", __name__, description="CPU-bound work, in processes of its own")

PROGRAM = Path(__file__).with_name("subset_sum.py")
NUMBER = 10**12
NUMBERS = 64
TEXT = 4096  # characters; more would be white space
SUM = NUMBER * NUMBERS
MATCHES = 10_000  # after which a stream ends: 64 zeros have 2^64 subsets
SEND = 5.0  # seconds that a client may take for a line
RETRY = 5  # seconds; about a quarter of what a computation may take


_SPACE, _NUMBER = r"[ \t\n\r]*", r"-?(0|[1-9][0-9]{0,11}|10{12})"
_ITEM = _SPACE + _NUMBER + _SPACE
# What Numbers takes, for the document.
LIST = rf"^{_SPACE}\[{_ITEM}(,{_ITEM}){{0,{NUMBERS - 1}}}\]{_SPACE}$"


class Numbers(fields.Field):
    """A JSON list of some whole numbers, as text."""

    def _deserialize(self, value, attr, data, **kwargs):
        if len(value) > TEXT:
            raise ValidationError(f"Longer than {TEXT} characters.")
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            raise ValidationError("Not JSON.") from None
        if not isinstance(found, list):
            raise ValidationError("Not a list.")
        if not 1 <= len(found) <= NUMBERS:
            raise ValidationError(f"From 1 to {NUMBERS} numbers only.")
        if any(type(n) is not int or abs(n) > NUMBER for n in found):
            raise ValidationError(f"Whole numbers from -{NUMBER} to {NUMBER} only.")
        return found


class Task(Schema):
    """Which numbers, and what some of them are to add up to."""

    data = Numbers(
        required=True,
        metadata={
            "type": "string",
            "pattern": LIST,
            "maxLength": TEXT,
            "description": f"A JSON list of 1 to {NUMBERS} whole numbers.",
            "example": "[1,2,-3,4]",
        },
    )
    sum = fields.Integer(required=True, validate=validate.Range(-SUM, SUM))


class Line(Schema):
    """A line of the stream. A stream without a line of `end` was cut off."""

    event = fields.String(
        required=True, validate=validate.OneOf(["waiting", "running", "match", "end"])
    )
    subset = fields.List(fields.Integer(), metadata={"description": "With `match`."})
    reason = fields.String(
        validate=validate.OneOf(["complete", "limit", "time", "stopping", "failed"]),
        metadata={"description": "With `end`; `stopping`: ask again, another process answers."},
    )
    matches = fields.Integer()
    steps = fields.Integer()


def init_app(app):
    """Make the pool of this process: a slot a core, shared among the workers of the host."""
    config = app.config
    cores = len(os.sched_getaffinity(0))
    slots = config["CPU_SLOTS"] or max(1, cores // config["WORKERS"])
    app.extensions["pool"] = Pool(slots, config["CPU_QUEUE"], config["CPU_SECONDS"])


@bp.after_request
def never_stored(response):
    """Streams stay out of every cache."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/subset-sum")
@bp.arguments(Task, location="query")
@bp.response(200, Line, content_type="application/x-ndjson")
@bp.problems(422, 429)
def subset_sum(task):
    """Stream the subsets of `data` that add up to `sum`, as they are found, in JSON lines."""
    try:
        share = {"share": current_app.config["CPU_SHARE"]}
        job = current_app.extensions["pool"].enter(PROGRAM, task | share)
    except FullError:
        raise TooManyRequests("Every process is busy.", retry_after=RETRY) from None
    client = request.environ.get("gunicorn.socket")
    if client:
        # A client that stops reading must not keep its slot.
        client.settimeout(SEND)
    response = Response(job.lines(MATCHES, client), mimetype="application/x-ndjson")
    # Called even if the stream is never read, as for HEAD.
    response.call_on_close(job.close)
    response.headers["X-Accel-Buffering"] = "no"
    return response
