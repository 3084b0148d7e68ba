"""Every error is an RFC 9457 problem with the request's id, and without internals."""

import logging
import traceback

from flask import current_app, g, jsonify, render_template, request
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
    response = jsonify(describe(status, title, detail, **more))
    response.status_code = status
    response.content_type = CONTENT_TYPE
    response.headers["Cache-Control"] = "no-store"
    return response


def page(status, title, detail=None, **more):
    """Return the same for people."""
    body = describe(status, title, detail, **more)
    response = current_app.make_response(render_template("error.html", problem=body))
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def describe(status, title, detail=None, **more):
    """Return what Problem describes."""
    body = {"type": "about:blank", "title": title, "status": status, "instance": request.path}
    if detail:
        body["detail"] = detail
    body |= {name: value for name, value in more.items() if value is not None}
    body["request_id"] = g.get("request_id", "")
    return body


def init_app(app):
    """Answer every exception with a problem."""
    app.register_error_handler(HTTPException, handle_http)
    app.register_error_handler(Exception, handle_unexpected)


def as_pages(blueprint):
    """Answer the exceptions of a blueprint of pages with pages."""
    blueprint.register_error_handler(HTTPException, lambda error: handle_http(error, page))
    blueprint.register_error_handler(Exception, lambda error: handle_unexpected(error, page))


def handle_http(error, answer=problem):
    """Describe an HTTP error; the fields of a request that did not validate are named."""
    if error.code is None or error.code < 400:
        return error.get_response()
    data = getattr(error, "data", None) or {}
    fields_wrong = data.get("errors") or data.get("messages")
    response = answer(
        error.code,
        error.name,
        data.get("message") or (None if fields_wrong else error.description),
        errors=fields_wrong,
    )
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def handle_unexpected(error, answer=problem):
    """Log what nobody foresaw, and tell the client nothing but where to find it."""
    log.exception("unhandled exception")
    trace = None
    if current_app.config["ERRORS_WITH_TRACE"]:
        trace = "".join(traceback.format_exception(error))
    return answer(500, InternalServerError().name, "An unexpected error occurred.", trace=trace)
