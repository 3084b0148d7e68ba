"""Jobs and ticks as a client and the database see them."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import requests

from tests.fleet.support import Fleet, eventually


def kill(fleet: Fleet, host: str, process: str, signal: str = "KILL") -> None:
    """Send a signal to the main process of a process type on a host, whatever its release."""
    unit = f"refapp-{process}@*.service"
    fleet.ssh(host, f"systemctl kill --kill-whom=main --signal={signal} '{unit}'")


def now(fleet: Fleet) -> str:
    """Return the database's time, in its own words."""
    return fleet.sql("SELECT clock_timestamp();")[0][0]


class Jobs:
    """Asks for jobs as a client does: with a key, and again while the answer is not 202."""

    def __init__(self, fleet: Fleet, client: requests.Session) -> None:
        self.fleet, self.client = fleet, client

    def submit(self, kind: str, **given: Any) -> dict[str, Any]:
        """Return the job that was accepted."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        body = {"kind": kind, **given}

        def accepted():
            answer = self.client.post(
                f"{self.fleet.url}/jobs", json=body, headers=headers, timeout=10
            )
            assert answer.status_code in (202, 429, 502, 503, 504), answer.text
            return answer.status_code == 202 and answer.json()

        return eventually(accepted, 60)

    def until(self, state: str, job: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
        """Wait for a job to be in a state; return it."""
        address = f"{self.fleet.url}/jobs/{job['id']}"
        return eventually(
            lambda: (
                (now := self.client.get(address, timeout=10).json()).get("state") == state and now
            ),
            seconds,
        )


class Imports:
    """Jobs that each record one sale, so that the table of sales counts their effects."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.fleet = jobs, jobs.fleet
        self.item = f"jobs-{uuid.uuid4().hex[:12]}"
        self.ids: set[str] = set()

    @contextmanager
    def asked_for(self, least: int) -> Iterator[None]:
        """Ask for some 30 a second while the block runs, and until there are `least`."""
        amounts, ended = itertools.count(1), threading.Event()

        def ask():
            ids = set()
            while (amount := next(amounts)) <= least or not ended.is_set():
                args = {"sales": [{"item": self.item, "amount": amount}]}
                ids.add(self.jobs.submit("sales-import", args=args)["id"])
                time.sleep(0.2)  # the queue is never long, and never idle
            return ids

        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask) for _ in range(8)]
            try:
                yield
            finally:
                ended.set()
            self.ids.update(*(each.result() for each in asking))

    def all_done_once(self) -> bool:
        """Return whether each sale is there, and none twice."""
        query = f"SELECT count(*), count(DISTINCT amount) FROM sales WHERE item = '{self.item}';"
        return self.fleet.sql(query) == [[str(len(self.ids))] * 2]

    def done_between(self, begin: str, end: str) -> tuple[int, int, float]:
        """Count jobs that ended in a time of the database, and hosts; the longest pause in s."""
        [[done, hosts, pause]] = self.fleet.sql(
            "SELECT count(*), count(DISTINCT host), "
            "coalesce(extract(epoch FROM max(finished_at - before)), 1000) FROM (SELECT *, "
            "lag(finished_at) OVER (ORDER BY finished_at) AS before FROM jobs "
            f"WHERE kind = 'sales-import' AND finished_at BETWEEN '{begin}' AND '{end}' "
            f"AND args #>> '{{sales,0,item}}' = '{self.item}') AS mine;"
        )
        return int(done), int(hosts), float(pause)


def prove_ticks(fleet: Fleet, since: str, least: int) -> None:
    """Since then each tick of `pulse` came once, and led to one job, which was done."""
    # Their key forbids two rows for one tick; that none is missing and that each has its job:
    query = (
        "SELECT count(*), count(*) FILTER (WHERE gap <> interval '10 s'), count(DISTINCT job_id), "
        "count(*) FILTER (WHERE NOT EXISTS (SELECT FROM jobs WHERE id = job_id "
        "AND kind = 'pulse' AND state = 'done')) "
        "FROM (SELECT *, tick - lag(tick) OVER (ORDER BY tick) AS gap FROM cron_ticks "
        f"WHERE name = 'pulse' AND tick >= '{since}') AS ticks;"
    )

    def proved():
        ticks, gaps, jobs, undone = fleet.sql(query)[0]
        print(f"{ticks} ticks, {gaps} gaps, {jobs} jobs, {undone} of them not done")
        return int(ticks) >= least and (gaps, jobs, undone) == ("0", ticks, "0")

    eventually(proved, 20)
    extra = (
        f"SELECT count(*) FROM jobs WHERE kind = 'pulse' AND created_at >= '{since}' "
        "AND id NOT IN (SELECT job_id FROM cron_ticks);"
    )
    assert fleet.sql(extra) == [["0"]], "jobs that no tick has made"
