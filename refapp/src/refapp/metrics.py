"""/metrics for Prometheus, summed over the workers of this host's gunicorn."""

import os
import time

from flask import Blueprint, Response, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from . import logs

bp = Blueprint("metrics", __name__)

REQUESTS = Counter("refapp_requests_total", "Requests", ["method", "route", "status"])
SECONDS = Histogram(
    "refapp_request_seconds",
    "Duration of requests",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
DROPPED = Counter("refapp_log_records_dropped_total", "Log records that nobody took in time")
# Figures of the fleet that any process can tell; the others are this host's.
FLEET = CollectorRegistry()
TOTALS = Counter("refapp_totals_total", "Totals of sales answered, by where from", ["source"])
SHARED = Counter("refapp_shared_total", "Results of another's work, by whose", ["where"])
JOBS = Counter("refapp_computations_total", "Computations, by how they ended", ["outcome"])
USER_COUNTS = Counter("refapp_user_counts_total", "Queries that counted the users")
CLIENTS = Gauge("refapp_realtime_clients", "Clients connected", multiprocess_mode="livesum")
DELIVERED = Counter("refapp_realtime_delivered_total", "Messages handed to clients")


def init_app(app):
    """Count every request by its route, not its path: a label must not grow with the data."""
    logs.queued.on_drop = DROPPED.inc
    app.register_blueprint(bp)
    app.before_request(start)
    app.after_request(count)


def start():
    """Take the time."""
    g.metrics_started = time.perf_counter()


def count(response):
    """Count the request under the rule that matched it."""
    route = request.url_rule.rule if request.url_rule else "none"
    method = request.method if request.url_rule else "any"
    REQUESTS.labels(method, route, response.status_code).inc()
    SECONDS.labels(route).observe(time.perf_counter() - g.metrics_started)
    return response


@bp.get("/metrics")
def show():
    """Answer the sums of all workers, or of this process when it is the only one."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    text = generate_latest(registry) + generate_latest(FLEET)
    answer = Response(text, content_type=CONTENT_TYPE_LATEST)
    answer.headers["Cache-Control"] = "no-store"
    return answer
