"""The web page, and its static files at addresses that change with the release."""

from flask import Blueprint, current_app, render_template, send_from_directory, url_for

from .extensions import settings

bp = Blueprint("pages", __name__)

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


def init_app(app):
    """Register the page, and what is said of every answer."""
    app.register_blueprint(bp)
    app.after_request(harden)


def harden(response):
    """Tell browsers to trust nothing that the app does not use."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if response.mimetype == "text/html":
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response


@bp.app_template_global()
def static_url(filename):
    """Return the address of a static file of this release."""
    return url_for("pages.static_file", release=current_app.config["RELEASE"], filename=filename)


@bp.app_context_processor
def banner():
    """Give every page what admins have to say."""
    return {"banner": settings["banner"]}


@bp.get("/")
def index():
    """Show the page."""
    page = current_app.make_response(render_template("index.html", config=current_app.config))
    page.headers["Cache-Control"] = "no-store"
    return page


@bp.get("/static/<release>/<path:filename>")
def static_file(release, filename):
    """Serve a file that the balancer has no copy of."""
    answer = send_from_directory("static", filename, max_age=0)
    # During a deploy a page of one release may ask a process of the other: that answer must
    # not be kept under this release's address.
    if release == current_app.config["RELEASE"] and current_app.config["STATIC_IMMUTABLE"]:
        answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    else:
        answer.headers["Cache-Control"] = "no-store"
    return answer
