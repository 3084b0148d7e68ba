"""Messages over HTTP: send one exactly once, read what there is; realtime/ pushes them."""

import uuid

from flask import g
from flask_jwt_extended import get_jwt
from marshmallow import Schema, fields, validate
from webargs.flaskparser import abort
from werkzeug.exceptions import TooManyRequests

from . import idempotency, messages
from .api import Blueprint
from .auth import protected, user_id
from .extensions import settings
from .redis import AwayError, Unavailable

bp = Blueprint("chat", __name__, description="Messages to everyone")


class Wanted(Schema):
    """Which messages to read."""

    after = fields.String(load_default=None, validate=messages.POSITION)
    limit = fields.Integer(load_default=100, validate=validate.Range(1, messages.PAGE))


class MessagesOut(Schema):
    """Messages in order."""

    messages = fields.List(fields.Nested(messages.MessageOut), required=True)
    complete = fields.Boolean(
        required=True,
        metadata={"description": "Whether everything after `after` is still kept."},
    )


@bp.after_request
def never_stored(response):
    """Tomorrow's answer is another one."""
    response.headers["Cache-Control"] = "no-store"
    return response


def closed_for(claims):
    """Return whether the setting keeps the bearer of these claims from sending."""
    return not settings["messages_open"] and "admin" not in claims.get("roles", [])


@bp.route("/messages", methods=["POST"])
@protected
@bp.arguments(idempotency.Header, location="headers")
@bp.arguments(messages.TextIn)
@bp.response(
    201,
    headers={"Idempotency-Replayed": {"schema": {"type": "string", "enum": ["true"]}}},
    schema=messages.MessageOut,
)
@bp.problems(400, 403, 413, 415, 422, 429, 503)
def create(header, given):
    """Send a message to everyone. The answer of 201 means that a failover can't lose it."""
    if closed_for(get_jwt()):
        abort(403, message="Messages are closed.")
    key = header["key"] or uuid.uuid4().hex
    try:
        sent, replayed = messages.add(user_id(), g.username, key, given["text"])
    except AwayError:
        raise Unavailable from None
    except messages.TooManyError as error:
        raise TooManyRequests("Too many messages.", retry_after=error.retry_after) from None
    except messages.ReusedError:
        abort(422, errors={"headers": {"Idempotency-Key": ["Used for another message."]}})
    answer = messages.MessageOut().load(sent)
    return answer, 201, {"Idempotency-Replayed": "true"} if replayed else {}


@bp.route("/messages")
@protected
@bp.arguments(Wanted, location="query")
@bp.response(200, MessagesOut)
@bp.problems(422, 503)
def index(wanted):
    """Read the messages after one, or the latest."""
    position, limit = wanted["after"], wanted["limit"]
    try:
        if position is None:
            found, complete = messages.latest(limit), True
        else:
            found, complete = messages.after(position, count=limit), messages.kept_since(position)
    except AwayError:
        raise Unavailable from None
    return {"messages": [messages.MessageOut().load(each) for each in found], "complete": complete}
