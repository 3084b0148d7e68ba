"""Pages to log in, to see who one is, and to log out; and a token for the scripts of pages."""

import functools
import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from flask import Blueprint, current_app, g, redirect, render_template, request, session, url_for
from marshmallow import ValidationError
from werkzeug.exceptions import TooManyRequests

from . import api, auth, errors
from .auth import standing, views
from .csrf import csrf
from .extensions import db
from .models import User

bp = Blueprint("account", __name__)
errors.as_pages(bp)

CSRF = {
    "name": "X-CSRFToken",
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
    "description": "As the page has it.",
}

scripts = api.Blueprint("session", __name__, description="What the page's own scripts use")


def current():
    """Return the session of who is logged in, or None."""
    if "login" not in session:
        return None
    if not standing.stands(session["login"]):
        session.renew()
        return None
    g.username = session["name"]
    return session


def user():
    """Return the user who is logged in, with the roles of this moment, or None."""
    me = current()
    if me is None:
        return None
    wanted = sa.select(User).where(User.id == uuid.UUID(me["user"]))
    return db.run(lambda session: session.scalar(wanted), idempotent=True)


def logged_in(view):
    """Let a page be seen by who is logged in; send others to the form."""

    @functools.wraps(view)
    def checked(*args, **kwargs):
        if current() is None:
            return redirect(url_for("account.login", next=request.path), 303)
        return view(*args, **kwargs)

    return checked


@bp.after_request
def never_stored(response):
    """Pages about somebody stay out of every cache."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/login")
def login():
    """Show the form."""
    return form()


def form(status=200, wrong=None, retry_after=None):
    """Return the form, with what was wrong."""
    username = request.form.get("username", "")
    page = current_app.make_response(
        render_template("login.html", wrong=wrong, username=username, next=target())
    )
    page.status_code = status
    if retry_after:
        page.headers["Retry-After"] = str(retry_after)
    return page


@bp.post("/login")
def log_in():
    """Start a session under a new id, or show the form again."""
    given = {name: request.form.get(name, "") for name in ("username", "password")}
    try:
        views.LoginIn().load(given)
        user, login = views.log_in(**given)
    except ValidationError:
        user = None
    except TooManyRequests as error:
        return form(429, "Too many wrong passwords. Try again in a minute.", error.retry_after)
    if user is None:
        return form(401, "Wrong name or password.")
    session.renew()
    session.update(
        user=str(user.id),
        name=user.username,
        roles=user.roles,
        login=str(login.id),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return redirect(target(), 303)


def target():
    """Return where to go after the form: an address of this site, whatever the link says."""
    wanted = request.values.get("next", "")
    # A path. Browsers read a backslash as a slash, two slashes as another host, and no tabs at all.
    ours = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted
    if ours and wanted.isprintable():
        return wanted
    return url_for("account.account")


@bp.get("/account")
@logged_in
def account():
    """Show who is logged in."""
    return render_template("account.html", me=session, config=current_app.config)


@bp.post("/logout")
def log_out():
    """End the session and its login; may be repeated."""
    if "login" in session:
        user, login = uuid.UUID(session["user"]), uuid.UUID(session["login"])
        views.log_out(user, login, everywhere="everywhere" in request.form)
        session.renew()
    return redirect(url_for("account.login"), 303)


@scripts.route("/account/token", methods=["POST"])
@scripts.doc(security=[{"session": []}], parameters=[CSRF])
@scripts.response(200, views.AccessOut)
@scripts.problems(400, 401, 503)
def token():
    """Give a page's script an access token; it asks with the page's `X-CSRFToken`."""
    csrf.protect()
    found = user()
    if not found:
        return auth.refuse("Nobody is logged in.")
    return auth.access_token(found, session["login"])
