"""What all pages share: static files at addresses that change with the release, and a policy."""

from urllib.parse import urlsplit

from flask import Blueprint, current_app, request, send_from_directory, url_for

from .extensions import settings

bp = Blueprint("pages", __name__)

# Nothing inline, nothing evaluated; files go to and come from the object store. What users upload
# may have the site's own origin: only static files are scripts and styles.
POLICY = (
    "default-src 'self'; script-src {static}; style-src {static}; "
    "connect-src 'self' {store}; img-src 'self' {store}; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def init_app(app):
    """Register static files, and what is said of every answer."""
    app.register_blueprint(bp)
    store = urlsplit(app.config["S3_PUBLIC_ENDPOINT"])
    store = f"{store.scheme}://{store.netloc}"
    app.after_request(lambda response: harden(response, store))


def harden(response, store):
    """Tell browsers to trust nothing that the app does not use."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if response.mimetype == "text/html":
        policy = POLICY.format(store=store, static=f"{request.host_url}static/")
        response.headers.setdefault("Content-Security-Policy", policy)
    return response


@bp.app_template_global()
def static_url(filename):
    """Return the address of a static file of this release."""
    return url_for("pages.static_file", release=current_app.config["RELEASE"], filename=filename)


@bp.app_context_processor
def banner():
    """Give every page what admins have to say."""
    return {"banner": settings["banner"]}


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
