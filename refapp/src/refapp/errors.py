"""Every error is an RFC 9457 problem with the request's id, and without internals."""

import logging
import traceback

from flask import current_app, g, jsonify, request
from marshmallow import Schema, fields
from werkzeug.exceptions import HTTPException, InternalServerError

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


class Problem(Schema):
    """An error, as documented."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String()
    instance = fields.String(metadata={"description": "Path of the request."})
    request_id = fields.String(required=True)
    errors = fields.Dict(metadata={"description": "Messages by field."})
    trace = fields.String(metadata={"description": "Never in production."})


def problem(status, title, detail=None, **more):
    """Return a problem+json response."""
    body = {"type": "about:blank", "title": title, "status": status, "instance": request.path}
    if detail:
        body["detail"] = detail
    body |= {name: value for name, value in more.items() if value is not None}
    body["request_id"] = g.get("request_id", "")
    response = jsonify(body)
    response.status_code = status
    response.content_type = CONTENT_TYPE
    response.headers["Cache-Control"] = "no-store"
    return response


def init_app(app):
    """Answer every exception with a problem."""
    app.register_error_handler(HTTPException, handle_http)
    app.register_error_handler(Exception, handle_unexpected)


def handle_http(error):
    """Describe an HTTP error; the fields of a request that did not validate are named."""
    if error.code is None or error.code < 400:
        return error.get_response()
    data = getattr(error, "data", None) or {}
    fields_wrong = data.get("errors") or data.get("messages")
    response = problem(
        error.code,
        error.name,
        data.get("message") or (None if fields_wrong else error.description),
        errors=fields_wrong,
    )
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def handle_unexpected(error):
    """Log what nobody foresaw, and tell the client nothing but where to find it."""
    log.exception("unhandled exception")
    trace = None
    if current_app.config["ERRORS_WITH_TRACE"]:
        trace = "".join(traceback.format_exception(error))
    return problem(500, InternalServerError().name, "An unexpected error occurred.", trace=trace)
