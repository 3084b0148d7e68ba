"""What runs when; times are UTC."""

from dataclasses import dataclass
from datetime import datetime

from croniter import croniter

MOST = 1000  # ticks that are enqueued at once, after the whole fleet was away


@dataclass(frozen=True)
class Schedule:
    """A kind of job, enqueued at the times of a cron expression; a sixth field is seconds."""

    name: str
    cron: str
    kind: str
    ttl: int  # seconds after which a tick that could not be run is better left out
    priority: int = 0

    def next(self, after):
        """Return the first tick after a time."""
        return croniter(self.cron, after).get_next(datetime)

    def between(self, after, until):
        """Return the ticks after one time, up to and including another; the oldest MOST."""
        ticks = []
        while len(ticks) < MOST and (tick := self.next(ticks[-1] if ticks else after)) <= until:
            ticks.append(tick)
        return ticks


# Above 0, which only admins ask for: no number of users' jobs keeps one from its time.
SCHEDULES = (
    Schedule("pulse", "* * * * * */10", "pulse", ttl=60, priority=50),
    Schedule("sales-report", "7 * * * *", "sales-report", ttl=3600, priority=20),
    Schedule("sweep-uploads", "23 * * * *", "sweep-uploads", ttl=3600, priority=10),
    Schedule("prune-jobs", "41 * * * *", "prune-jobs", ttl=3600, priority=10),
)
