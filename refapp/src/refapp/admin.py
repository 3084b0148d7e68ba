"""What admins do: change settings of the running fleet."""

from flask import current_app
from marshmallow import Schema, fields
from webargs.flaskparser import abort

from .api import Blueprint
from .auth import protected
from .extensions import settings
from .redis import AwayError, Unavailable
from .settings import DECLARED

bp = Blueprint("admin", __name__, description="For users with the role admin")


class SettingOut(Schema):
    """A setting as it is in effect in the process that answers."""

    name = fields.String(required=True)
    value = fields.Raw(required=True)
    default = fields.Raw(required=True)
    type = fields.String(required=True)
    choices = fields.List(fields.String(), required=True)
    description = fields.String(required=True)


class SettingsOut(Schema):
    """All settings, and which process has them so."""

    version = fields.Integer(required=True, metadata={"description": "Grows with each change."})
    settings = fields.List(fields.Nested(SettingOut), required=True)
    host = fields.String(required=True)
    process = fields.String(required=True)
    instance = fields.String(required=True)


class ValueIn(Schema):
    """A new value, of the setting's own type."""

    value = fields.Raw(required=True)


@bp.after_request
def never_stored(response):
    """Answers are about this process at this moment."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/settings")
@protected(role="admin")
@bp.response(200, SettingsOut)
@bp.problems()
def index():
    """List the settings, with the values in effect here."""
    config = current_app.config
    return {
        "version": settings.version,
        "settings": [described(name) for name in DECLARED],
        "host": config["HOST"],
        "process": config["PROCESS"],
        "instance": config["INSTANCE"],
    }


@bp.route(f"/settings/<any({', '.join(DECLARED)}):name>", methods=["PUT"])
@protected(role="admin")
@bp.arguments(ValueIn)
@bp.response(200, SettingOut)
@bp.problems(400, 404, 413, 415, 422, 503)
def change(given, name):
    """Change a setting: within a second every process of every host has the value."""
    problem = DECLARED[name].problem(given["value"])
    if problem:
        abort(422, errors={"json": {"value": [problem]}})
    try:
        settings.change(name, given["value"])
    except AwayError:
        raise Unavailable from None
    return described(name) | {"value": given["value"]}


def described(name):
    """Return what SettingOut describes."""
    setting = DECLARED[name]
    return {
        "name": name,
        "value": settings[name],
        "default": setting.default,
        "type": {"str": "string", "bool": "boolean"}[type(setting.default).__name__],
        "choices": list(setting.choices),
        "description": setting.description,
    }
