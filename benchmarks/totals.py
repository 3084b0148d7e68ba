"""Requests a second for a total of sales: plain, coalesced and cached, with one worker and more.

From refapp's test environment, which `refapp/tests/run` makes:

    nice -n 10 .lab/venv-refapp/bin/python benchmarks/totals.py [--seconds 10] [--workers 1 4]

Starts PostgreSQL, Redis and gunicorn on free ports. The client runs on the same machine, so
the rows are for comparison with each other only.
"""

import argparse
import asyncio
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "refapp/src"), str(ROOT / "refapp/tests")]

import services  # noqa: E402
from conftest import make_database, make_environ, migrate  # noqa: E402
from web import Web, hammer  # noqa: E402

PATH = "/sales/total?item=item-1"


def measure(environ, directory, way, workers, options):
    """Return requests a second, failures and queries of one row."""
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        settings = environ | {"REFAPP_TOTALS": way}
        web = Web(settings, listener, directory, "bench", workers=workers)
        try:
            asyncio.run(hammer(web.port, PATH, options.connections, 1))
            before, began = queries(web.port), time.monotonic()
            good, failed = asyncio.run(hammer(web.port, PATH, options.connections, options.seconds))
            took = time.monotonic() - began
            return len(good) / took, failed, queries(web.port) - before
        finally:
            web.stop()


def queries(port):
    """Return how many queries for totals the server has made."""
    _, text = services.send("GET", f"http://127.0.0.1:{port}/metrics")
    lines = text.decode().splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith('refapp_totals_total{source="d'))


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="refapp-bench-"))
    directory.chmod(0o755)
    postgres = services.Postgres(directory / "postgres")
    redis = services.Redis(directory / "redis")
    try:
        postgres.start()
        redis.start()
        environ = make_environ(
            REFAPP_DATABASE_URL=make_database(postgres),
            REFAPP_REDIS_SENTINELS=f"127.0.0.1:{redis.sentinel.port}",
        )
        migrate(environ).communicate(timeout=120)
        load, cores = os.getloadavg()[0], os.cpu_count()
        print(f"{options.connections} connections, {options.seconds:.0f} s a row; load average"
              f" of the machine before: {load:.1f} on {cores} cores")  # fmt: skip
        print(f"{'way':10} {'workers':>7} {'requests/s':>10} {'failed':>6} {'queries':>7}")
        for workers in options.workers:
            for way in ("plain", "coalesced", "cached"):
                here = directory / f"{way}-{workers}"
                rate, failed, asked = measure(environ, here, way, workers, options)
                print(f"{way:10} {workers:7} {rate:10.0f} {failed:6} {asked:7.0f}", flush=True)
    finally:
        for server in (redis.sentinel, redis, postgres):
            if hasattr(server, "process"):
                server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
