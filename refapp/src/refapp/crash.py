"""POST /crash ends the process that gets it. It exists in development only."""

import os

from .api import Blueprint

bp = Blueprint("crash", __name__, description="Development only")


@bp.route("/crash", methods=["POST"])
@bp.response(204)
@bp.problems()
def crash():
    """Crash: the connection ends without an answer, and gunicorn replaces the worker."""
    os._exit(1)
