"""The page that shows the patterns at work, each in a panel: see static/js for what moves in it."""

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug.exceptions import Forbidden, ServiceUnavailable

from . import account, admin, errors
from .cron.schedule import SCHEDULES
from .extensions import settings
from .redis import AwayError
from .sessions import SessionsAway
from .settings import DECLARED

bp = Blueprint("home", __name__)
errors.as_pages(bp)


@bp.after_request
def never_stored(response):
    """The page says who answered, and who is logged in."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/")
def index():
    """Show the page."""
    return page()


def page(status=200, wrong=None):
    """Return the page; `wrong` says what is wrong with a setting, by its name.

    It needs no other tier: while nobody can be recognised, all see what strangers see.
    """
    try:
        me, away = account.current(), None
    except ServiceUnavailable as error:
        me, away = None, error.description
    text = render_template(
        "index.html",
        config=current_app.config,
        me=me,
        away=away,
        schedules=SCHEDULES,
        settings=[admin.described(name) for name in DECLARED],
        wrong=wrong or {},
    )
    return text, status


@bp.post(f"/account/settings/<any({', '.join(DECLARED)}):name>")
@account.logged_in
def change_setting(name):
    """Change a setting by a form: the page's scripts use the API instead."""
    user = account.user()
    if not user or "admin" not in user.roles:
        raise Forbidden
    setting = DECLARED[name]
    # Browsers send nothing of a box that is not ticked.
    ticked = "value" in request.form
    value = ticked if isinstance(setting.default, bool) else request.form.get("value", "")
    problem = setting.problem(value)
    if problem:
        return page(422, {name: problem})
    try:
        settings.change(name, value)
    except AwayError as error:
        raise SessionsAway from error
    return redirect(url_for("home.index", _anchor="settings"), 303)
