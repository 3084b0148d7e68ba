"""Log in: short JWT access tokens and longer refresh tokens that any process can check."""

import functools
import uuid

import argon2
import sqlalchemy as sa
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
from marshmallow import Schema, fields, validate

from .api import Blueprint
from .errors import problem
from .extensions import db
from .models import User

bp = Blueprint("auth", __name__, description="Log in and refresh")
jwt = JWTManager()

ACCESS_SECONDS = 900
REFRESH_SECONDS = 14 * 24 * 3600
# OWASP's smaller profile: 16 threads may hash at once, 19 MiB each.
hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Verified when there is no such user, so that a wrong name takes as long as a wrong password.
NOBODY = hasher.hash("nobody's password")

# No control characters: PostgreSQL takes no NUL, and no text of ours needs the others.
TEXT = validate.Regexp(r"^[^\x00-\x1f\x7f\ud800-\udfff]+\Z", error="Has control characters.")


class LoginIn(Schema):
    """Name and password."""

    username = fields.String(required=True, validate=[validate.Length(1, 150), TEXT])
    password = fields.String(
        required=True, validate=[validate.Length(1, 1024), TEXT], load_only=True
    )


class AccessOut(Schema):
    """A new access token."""

    access_token = fields.String(required=True)
    token_type = fields.Constant("Bearer")
    expires_in = fields.Integer(required=True, metadata={"description": "Seconds."})


class LoginOut(AccessOut):
    """Access and refresh tokens."""

    refresh_token = fields.String(required=True)


def init_app(app):
    """Sign with the first of the configured keys, accept any of them."""
    keys = app.config["JWT_KEYS"]
    app.config.update(
        JWT_ALGORITHM="HS256",
        JWT_DECODE_ALGORITHMS=["HS256"],
        JWT_ACCESS_TOKEN_EXPIRES=ACCESS_SECONDS,
        JWT_REFRESH_TOKEN_EXPIRES=REFRESH_SECONDS,
        JWT_ENCODE_ISSUER="refapp",
        JWT_DECODE_ISSUER="refapp",
        JWT_DECODE_LEEWAY=5,  # seconds that hosts' clocks may differ
    )
    jwt.init_app(app)
    first = next(iter(keys))
    jwt.encode_key_loader(lambda identity: keys[first])
    jwt.decode_key_loader(lambda header, payload: key_of(keys, header))
    app.extensions["jwt_headers"] = {"kid": first}
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


def refuse(detail, error=None):
    """Answer 401 the way RFC 6750 wants it."""
    response = problem(401, "Unauthorized", detail)
    response.headers["WWW-Authenticate"] = f'Bearer error="{error}"' if error else "Bearer"
    return response


def protected(view=None, *, refresh=False):
    """Let a view run for a bearer of a token only; `user_id()` says whose."""
    if view is None:
        return functools.partial(protected, refresh=refresh)

    @jwt_required(refresh=refresh)
    @functools.wraps(view)
    def checked(*args, **kwargs):
        g.username = get_jwt().get("name")
        return view(*args, **kwargs)

    return bp.doc(security=[{"bearer": []}])(bp.alt_response(401, "UNAUTHORIZED")(checked))


def user_id():
    """Return the id of the user whose token the request carries."""
    return uuid.UUID(get_jwt_identity())


def access_token(user):
    """Return what AccessOut describes."""
    claims = {"name": user.username, "roles": user.roles}
    token = create_access_token(
        str(user.id),
        additional_claims=claims,
        additional_headers=current_app.extensions["jwt_headers"],
    )
    return {"access_token": token, "expires_in": ACCESS_SECONDS}


@bp.after_request
def never_stored(response):
    """Tokens stay out of every cache."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/auth/login", methods=["POST"])
@bp.arguments(LoginIn)
@bp.response(200, LoginOut)
@bp.problems(400, 401, 413, 415, 503)
def login(given):
    """Exchange a name and a password for tokens."""
    found = sa.select(User).where(User.username == given["username"])
    user = db.run(lambda session: session.scalar(found), idempotent=True)
    try:
        hasher.verify(user.password_hash if user else NOBODY, given["password"])
    except argon2.exceptions.VerificationError:
        user = None
    if user is None:
        return refuse("Wrong name or password.")
    g.username = user.username
    if hasher.check_needs_rehash(user.password_hash):
        rehash(user, given["password"])
    refresh = create_refresh_token(
        str(user.id),
        additional_claims={"name": user.username},
        additional_headers=current_app.extensions["jwt_headers"],
    )
    return access_token(user) | {"refresh_token": refresh}


def rehash(user, password):
    """Keep the password under today's parameters, unless it was changed meanwhile."""
    change = (
        sa.update(User)
        .where(User.id == user.id, User.password_hash == user.password_hash)
        .values(password_hash=hasher.hash(password))
    )
    db.run(lambda session: session.execute(change), idempotent=True)


@bp.route("/auth/refresh", methods=["POST"])
@protected(refresh=True)
@bp.response(200, AccessOut)
@bp.problems(503)
def refresh():
    """Exchange a refresh token for an access token with the roles of today."""
    found = sa.select(User).where(User.id == user_id())
    user = db.run(lambda session: session.scalar(found), idempotent=True)
    if user is None:
        return refuse("The user is gone.", "invalid_token")
    return access_token(user)
