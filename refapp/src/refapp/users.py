"""Users, which an admin makes."""

import sqlalchemy as sa
from marshmallow import Schema, fields, validate
from webargs.flaskparser import abort

from . import auth
from .api import Blueprint
from .extensions import db
from .fields import TEXT
from .models import User

bp = Blueprint("users", __name__, description="Users")

ROLE = validate.Regexp(r"^[a-z][a-z-]*\Z", error="Small letters and hyphens.")


class UserIn(Schema):
    """Who is to be able to log in."""

    username = fields.String(required=True, validate=[validate.Length(1, 150), TEXT])
    password = fields.String(
        required=True, validate=[validate.Length(12, 1024), TEXT], load_only=True
    )
    roles = fields.List(
        fields.String(validate=[validate.Length(1, 50), ROLE]),
        load_default=list,
        validate=validate.Length(max=20),
    )


class UserOut(Schema):
    """A user."""

    id = fields.UUID(required=True)
    username = fields.String(required=True)
    roles = fields.List(fields.String(), required=True)
    created_at = fields.DateTime(required=True)


@bp.after_request
def never_stored(response):
    """Who there is, is nothing for caches."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/users", methods=["POST"])
@auth.protected(role="admin")
@bp.arguments(UserIn)
@bp.response(201, UserOut)
@bp.problems(400, 409, 413, 415, 422)
def create(given):
    """Make a user. A repeat gets 409: the name says that it is the same."""
    user = User(
        username=given["username"],
        password_hash=auth.hasher.hash(given["password"]),
        roles=given["roles"],
    )
    try:
        db.run(lambda session: session.add(user))
    except sa.exc.IntegrityError:
        abort(409, message="There is a user of this name.")
    return user
