"""The endpoints of logging in and out."""

import logging
import uuid

from flask import g
from flask_jwt_extended import get_jwt
from marshmallow import Schema, fields, validate

from .. import idempotency
from ..extensions import db
from ..fields import TEXT, Flag
from . import attempts, logins, passwords, standing
from .tokens import access_token, bp, protected, refresh_token, refuse, user_id

log = logging.getLogger(__name__)


class LoginIn(Schema):
    """Name and password."""

    username = fields.String(required=True, validate=[validate.Length(1, 150), TEXT])
    password = fields.String(
        required=True, validate=[validate.Length(1, 1024), TEXT], load_only=True
    )


class AccessOut(Schema):
    """An access token."""

    access_token = fields.String(required=True)
    token_type = fields.Constant("Bearer")
    expires_in = fields.Integer(required=True, metadata={"description": "Seconds."})


class TokensOut(AccessOut):
    """An access token, and the refresh token to be used next."""

    refresh_token = fields.String(required=True)


class LogoutIn(Schema):
    """How far to log out."""

    everywhere = Flag(
        load_default=False,
        metadata={"description": "Every login of the user, not only this one."},
    )


@bp.after_request
def never_stored(response):
    """Tokens stay out of every cache."""
    response.headers["Cache-Control"] = "no-store"
    return response


def log_in(username, password):
    """Return (user, login), or (None, None) for a wrong name or password.

    Raises TooManyRequests when too many were wrong.
    """
    attempts.check(username)
    user = passwords.find(username, password)
    if user is None:
        attempts.failed(username)
        # Not the name: people type passwords into that field.
        log.info("login refused")
        return None, None
    attempts.succeeded(username)
    g.username = user.username
    # Repeated by a lost answer to COMMIT, it leaves a login that nobody uses.
    login = db.run(lambda session: logins.start(session, user), idempotent=True)
    return user, login


@bp.route("/auth/login", methods=["POST"])
@bp.arguments(LoginIn)
@bp.response(200, TokensOut)
@bp.problems(400, 401, 413, 415, 422, 429, 503)
def login(given):
    """Exchange a name and a password for tokens."""
    user, login = log_in(given["username"], given["password"])
    if user is None:
        return refuse("Wrong name or password.")
    return access_token(user, login.id) | {"refresh_token": refresh_token(user, login)}


@bp.route("/auth/refresh", methods=["POST"])
@protected(refresh=True)
@bp.arguments(idempotency.Header, location="headers")
@bp.response(200, TokensOut)
@bp.problems(422)
def refresh(header):
    """Exchange a refresh token for the next one, and an access token with the roles of today.

    A refresh token that is used twice ends the login. Only who repeats the Idempotency-Key of the
    first use, within 30 s, gets the same answer; so the balancer may repeat it on another host.
    """
    claims = get_jwt()
    login_id = uuid.UUID(claims["login"])
    used = logins.use(header["key"])
    login, user, stolen = db.run(
        lambda session: logins.refresh(session, login_id, claims["generation"], used),
        idempotent=True,
    )
    if stolen:
        standing.ended([login_id])
        log.warning("a refresh token was used twice: its login is ended")
    if login is None:
        return refuse("The token was revoked.", "invalid_token")
    return access_token(user, login.id) | {"refresh_token": refresh_token(user, login)}


@bp.route("/auth/logout", methods=["POST"])
@protected
@bp.arguments(LogoutIn, required=False)
@bp.response(204)
@bp.problems(400, 413, 415, 422)
def logout(given):
    """End the login of this access token, or every one of the user."""
    log_out(user_id(), uuid.UUID(get_jwt()["login"]), given["everywhere"])


def log_out(user, login_id, everywhere=False):
    """End logins: in the database first, which everybody else then hears of."""
    ids = [login_id]
    if everywhere:
        ids += db.run(lambda session: logins.end_all(session, user), idempotent=True)
    else:
        db.run(lambda session: logins.end(session, login_id), idempotent=True)
    standing.ended(ids)
