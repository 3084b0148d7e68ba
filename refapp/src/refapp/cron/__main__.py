"""`python -m refapp.cron`: one on each host; the elected one enqueues the ticks."""

import contextlib
import logging
import signal
import sys
import threading

from sqlalchemy.exc import SQLAlchemyError

from .. import logs
from ..db import Unavailable
from ..extensions import db, settings
from ..factory import create_app
from .schedule import SCHEDULES
from .ticker import STEP, Ticker

log = logging.getLogger("refapp.cron")


def main(app, schedules=SCHEDULES):
    """Step until told to stop, then let another lead."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ticker = Ticker(db, app.config["HOST"], schedules)
    log.info("cron starts", extra={"schedules": [schedule.name for schedule in schedules]})
    while not stopping.wait(STEP):
        try:
            ticker.step()
        except (Unavailable, SQLAlchemyError) as error:  # the clock goes on
            log.warning("no step", extra={"error": type(error).__name__})
        except Exception:  # of one schedule, say; another process may lead now
            log.exception("no step")
    with contextlib.suppress(Unavailable, SQLAlchemyError):
        ticker.resign()


if __name__ == "__main__":
    logs.configure()
    try:
        app = create_app({"DATABASE_POOL": "1"})
    except RuntimeError as error:
        sys.exit(f"refapp.cron: {error}")
    settings.start()
    main(app)
