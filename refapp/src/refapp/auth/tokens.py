"""JWT: short access tokens, longer refresh tokens, and the views that want one of them."""

import functools
import uuid
from http import HTTPStatus

from flask import current_app, g
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    get_jwt,
    get_jwt_identity,
    jwt_required,
)
from jwt.exceptions import InvalidTokenError
from marshmallow import INCLUDE, Schema, ValidationError, fields, validate
from werkzeug.exceptions import Forbidden

from ..api import Blueprint
from ..errors import problem
from ..fields import TEXT, Whole
from . import standing
from .standing import ACCESS_SECONDS

bp = Blueprint("auth", __name__, description="Log in, refresh, log out")
jwt = JWTManager()


class Access(Schema):
    """What is said by each token that we sign: views rely on it."""

    sub = fields.UUID(required=True)
    login = fields.UUID(required=True)
    name = fields.String(required=True, validate=TEXT)
    roles = fields.List(fields.String())
    type = fields.String(required=True, validate=validate.Equal("access"))
    exp = Whole(required=True)


class Refresh(Access):
    """What a refresh token says besides."""

    type = fields.String(required=True, validate=validate.Equal("refresh"))
    generation = Whole(required=True)


ACCESS, REFRESH = Access(unknown=INCLUDE), Refresh(unknown=INCLUDE)


def init_app(app):
    """Sign with the first of the configured keys, accept any of them."""
    keys = app.config["JWT_KEYS"]
    app.config.update(
        JWT_ALGORITHM="HS256",
        JWT_DECODE_ALGORITHMS=["HS256"],
        JWT_TOKEN_LOCATION=["headers"],
        JWT_COOKIE_CSRF_PROTECT=False,  # no token is ever in a cookie
        JWT_ACCESS_TOKEN_EXPIRES=ACCESS_SECONDS,
        JWT_ENCODE_ISSUER="refapp",
        JWT_DECODE_ISSUER="refapp",
        JWT_DECODE_LEEWAY=5,  # seconds that hosts' clocks may differ
    )
    jwt.init_app(app)
    first = next(iter(keys))
    jwt.encode_key_loader(lambda identity: keys[first])
    jwt.decode_key_loader(lambda header, payload: key_of(keys, header))
    app.extensions["jwt_headers"] = {"kid": first}
    jwt.token_in_blocklist_loader(lambda header, payload: revoked(payload))
    jwt.unauthorized_loader(lambda reason: refuse("A bearer token is required."))
    jwt.invalid_token_loader(lambda reason: refuse("The token is not valid.", "invalid_token"))
    jwt.expired_token_loader(lambda *_: refuse("The token has expired.", "invalid_token"))
    jwt.revoked_token_loader(lambda *_: refuse("The token was revoked.", "invalid_token"))


def key_of(keys, header):
    """Return the key that a token names, as long as it is configured."""
    kid = header.get("kid")
    if not isinstance(kid, str) or kid not in keys:
        raise InvalidTokenError("unknown key")
    return keys[kid]


def revoked(claims):
    """Return whether the login of a token has ended; raise InvalidTokenError if it names none."""
    is_refresh = claims["type"] == "refresh"
    try:
        (REFRESH if is_refresh else ACCESS).load(claims)
    except ValidationError as error:
        raise InvalidTokenError("not of our making") from error
    # A refresh token is held to the database itself when it is used.
    return not is_refresh and not standing.stands(claims["login"])


def refuse(detail, error=None):
    """Answer 401 the way RFC 6750 wants it."""
    response = problem(401, "Unauthorized", detail)
    response.headers["WWW-Authenticate"] = f'Bearer error="{error}"' if error else "Bearer"
    return response


def protected(view=None, *, refresh=False, role=None):
    """Let a view run for a bearer of a token only, of one with a role when that is given.

    `user_id()` says whose token it is.
    """
    if view is None:
        return functools.partial(protected, refresh=refresh, role=role)

    @jwt_required(refresh=refresh)
    @functools.wraps(view)
    def checked(*args, **kwargs):
        claims = get_jwt()
        g.username = claims["name"]
        if role and role not in claims.get("roles", ()):
            raise Forbidden(f"Only for the role {role}.")
        return view(*args, **kwargs)

    if role:
        checked = bp.alt_response(403, "FORBIDDEN")(checked)
    # The database is asked, when Redis does not know, whether the login still stands.
    for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE):
        checked = bp.alt_response(status, status.name)(checked)
    return bp.doc(security=[{"bearer": []}])(checked)


def user_id():
    """Return the id of the user whose token the request carries."""
    return uuid.UUID(get_jwt_identity())


def access_token(user, login_id):
    """Return what AccessOut describes; roles are those of this moment."""
    token = create_access_token(
        str(user.id),
        additional_claims={"name": user.username, "roles": user.roles, "login": str(login_id)},
        additional_headers=current_app.extensions["jwt_headers"],
    )
    return {"access_token": token, "expires_in": ACCESS_SECONDS}


def refresh_token(user, login):
    """Return the token to be used next: the same one however often it is asked for."""
    issued, expires = int(login.issued_at.timestamp()), int(login.expires_at.timestamp())
    return create_refresh_token(
        str(user.id),
        additional_claims={
            "name": user.username,
            "login": str(login.id),
            "generation": login.generation,
            "jti": f"{login.id}.{login.generation}",
            "iat": issued,
            "nbf": issued,
            "exp": expires,
        },
        additional_headers=current_app.extensions["jwt_headers"],
    )
