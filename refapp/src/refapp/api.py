"""The OpenAPI document at /openapi.json: what an operation may answer is listed, all of it."""

import http

import flask_smorest
from flask_smorest.utils import prepare_response
from webargs.flaskparser import FlaskParser

from . import errors
from .csrf import csrf


class Api(flask_smorest.Api):
    """flask-smorest with our error format."""

    ERROR_SCHEMA = errors.Problem
    # A default response would document every status, and so none.
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self):
        """Leave errors to errors.py, which also serves what is not part of the API."""

    def _register_responses(self):
        for status in http.HTTPStatus:
            if status >= 400:
                response = {"description": status.phrase, "schema": self.ERROR_SCHEMA}
                prepare_response(response, self.spec, errors.CONTENT_TYPE)
                self.spec.components.response(status.name, response, lazy=True)


def pattern_for_javascript(converter, field, ret, **_):
    """Write a pattern the way JSON Schema has it: only Python's ends a text by \\Z."""
    return {"pattern": ret["pattern"].replace(r"\Z", "$")} if "pattern" in ret else {}


class Parser(FlaskParser):
    """Refuses what an operation does not know in the query too, and names it."""

    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": None}

    def load_json(self, req, schema):
        """Refuse JSON that Python does not read, too: too deep, or a number of 5,000 digits."""
        try:
            return super().load_json(req, schema)
        except (ValueError, RecursionError) as error:
            return self._handle_invalid_json_error(error, req)


class Blueprint(flask_smorest.Blueprint):
    """A blueprint whose operations say in one line how they may fail."""

    ARGUMENTS_PARSER = Parser()

    def problems(self, *statuses):
        """Document problems of these statuses; 500 is always possible."""

        def decorate(view):
            for status in (*statuses, 500):
                view = self.alt_response(status, http.HTTPStatus(status).name)(view)
            return view

        return decorate


def init_app(app, blueprints):
    """Register the blueprints, and their document."""
    app.config.update(
        API_TITLE="refapp",
        API_VERSION="1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
    )
    api = Api(app)
    api.ma_plugin.converter.add_attribute_function(pattern_for_javascript)
    api.spec.components.security_scheme(
        "bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    )
    api.spec.components.security_scheme(
        "session",
        {"type": "apiKey", "in": "cookie", "name": app.config["SESSION_COOKIE_NAME"]},
    )
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
        csrf.exempt(blueprint)
