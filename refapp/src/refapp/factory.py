"""The application factory."""

import logging

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from . import (
    account,
    admin,
    api,
    auth,
    chat,
    compute,
    config,
    crash,
    csrf,
    errors,
    extensions,
    headcount,
    health,
    home,
    logs,
    metrics,
    multipart,
    pages,
    sales,
    sessions,
    uploads,
    users,
)
from .cron import views as cron
from .jobs import views as jobs

log = logging.getLogger(__name__)

BLUEPRINTS = [
    health.bp,
    auth.bp,
    sales.bp,
    uploads.bp,
    multipart.bp,
    compute.bp,
    users.bp,
    headcount.bp,
    admin.bp,
    chat.bp,
    account.scripts,
    jobs.bp,
    cron.bp,
]


def create_app(overrides=None):
    """Build the application from REFAPP_* variables, then `overrides`; connects nowhere."""
    app = Flask(__package__, static_folder=None)
    app.config.update(config.load(overrides=overrides))
    app.url_map.strict_slashes = False
    # The balancer and the cache each replace or keep the last address: one hop in either case.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)

    logs.init_app(app)
    errors.init_app(app)
    metrics.init_app(app)
    extensions.init_app(app)
    auth.init_app(app)
    health.init_app(app)
    csrf.init_app(app)
    compute.init_app(app)
    pages.init_app(app)
    app.register_blueprint(home.bp)
    app.register_blueprint(account.bp)
    api.init_app(app, BLUEPRINTS + ([crash.bp] if app.config["CRASHABLE"] else []))
    sessions.init_app(app)
    if app.debug:
        log.warning("development mode: answers carry traces; never let the world reach this")
    return app
