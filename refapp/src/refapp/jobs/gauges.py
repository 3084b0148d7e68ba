"""Jobs by state, for /metrics: figures of the whole fleet, the same from every host."""

import threading
import time

import sqlalchemy as sa
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import exc

from ..extensions import db
from ..metrics import FLEET
from ..models import Job

FRESH = 5.0  # seconds that a process answers the same figures


class Gauges:
    """Counts when asked, not more often than every FRESH seconds; says nothing without database."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts, self._oldest, self._until = {}, 0.0, 0.0

    def describe(self):
        """Name nothing in advance, so that registering asks for nothing."""
        return []

    def collect(self):
        """Return the figures."""
        with self._lock:
            if time.monotonic() > self._until:
                try:
                    self._count()
                except exc.SQLAlchemyError:
                    return []
            jobs = GaugeMetricFamily("refapp_jobs", "Jobs in the database", labels=["state"])
            for state in ("queued", "running", "done", "dead", "expired"):
                jobs.add_metric([state], self._counts.get(state, 0))
            oldest = GaugeMetricFamily(
                "refapp_jobs_oldest_due_seconds", "How long the first due job waits", self._oldest
            )
            return [jobs, oldest]

    def _count(self):
        waits = sa.func.extract("epoch", sa.func.now() - sa.func.min(Job.run_at))
        due = sa.and_(Job.state == "queued", Job.run_at <= sa.func.now())
        with db.engine.connect() as connection:
            rows = connection.execute(sa.select(Job.state, sa.func.count()).group_by(Job.state))
            self._counts = {state: count for state, count in rows}
            self._oldest = float(connection.scalar(sa.select(waits).where(due)) or 0)
        self._until = time.monotonic() + FRESH


FLEET.register(Gauges())
