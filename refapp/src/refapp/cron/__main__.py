"""`python -m refapp.cron`: one on each host; the elected one enqueues the ticks."""

import logging
import signal
import sys
import threading

from .. import logs
from ..db import Unavailable
from ..extensions import db
from ..factory import create_app
from .schedule import SCHEDULES
from .ticker import STEP, Ticker

log = logging.getLogger("refapp.cron")


def main(schedules=SCHEDULES):
    """Step until told to stop, then let another lead."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    app = create_app({"DATABASE_POOL": "1"})
    ticker = Ticker(db, app.config["HOST"], schedules)
    while not stopping.wait(STEP):
        try:
            ticker.step()
        except Unavailable:
            log.warning("the database is away")
    try:
        ticker.resign()
    except Unavailable:
        log.warning("could not resign")


if __name__ == "__main__":
    logs.configure()
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"refapp.cron: {error}")
