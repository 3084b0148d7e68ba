"""The command: `python -m plugins.load --url https://example.com --get /`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from .client import Load, Options
from .mix import Mix
from .report import summary


def weights(text: str) -> dict[str, float]:
    """Read `write=50,app=25`."""
    found = {kind: float(weight) for kind, _, weight in (p.partition("=") for p in text.split(","))}
    if unknown := found.keys() - set(Mix.KINDS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return found


def arguments() -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(
        prog="load",
        description="Put a steady load on a site; exit 1 if one request failed.",
        epilog="The password of --sales-user is that of --password-file, or else of the variable "
        "LOAD_PASSWORD: a command line is world-readable.",
    )
    add = parser.add_argument
    add("--url", action="append", required=True, help="site to load; repeat to spread over several")
    add(
        "--connect",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="connect to this address instead of the URL's host (as each balancer); repeatable",
    )
    add("--get", action="append", default=[], metavar="PATH", help="path to GET; repeatable")
    add("--ca", help="file of the authority that signed the site's certificate")
    add("--clients", type=int, default=24, help="clients, one request each at a time (%(default)s)")
    add(
        "--fresh",
        type=float,
        default=0.3,
        help="share of clients that open a connection for every request (%(default)s)",
    )
    add("--rate", type=float, default=100, help="requests a second; 0: no bound (%(default)s)")
    add("--duration", type=float, default=30, help="seconds to run at most (%(default)s)")
    add("--count", type=int, default=0, help="requests to send at most; 0: no bound")
    add("--stop-file", type=Path, help="end when this file appears (SIGTERM and SIGINT do too)")
    add("--while-pid", type=int, metavar="PID", help="end when this process has gone")
    add(
        "--give-up",
        type=float,
        default=300,
        metavar="SECONDS",
        help="end when nothing at all was answered for so long; 0: never (%(default)s)",
    )
    add("--started-file", type=Path, help="made when every client has had an answer")
    add(
        "--timeout",
        type=float,
        default=10,
        help="seconds after which a request failed, repeats included",
    )
    add(
        "--retry-idempotent",
        type=int,
        default=0,
        metavar="N",
        help="send a failed GET or keyed POST again up to N times; 0: never",
    )
    add(
        "--sales",
        type=float,
        default=0,
        metavar="SHARE",
        help="share of POST /sales in the mix (the reference application's)",
    )
    add(
        "--sales-unkeyed",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of these POSTs without an Idempotency-Key (%(default)s)",
    )
    add("--sales-user", default="admin")
    add("--password-file", type=Path, help="file of that user's password; read once, at the start")
    add(
        "--mix",
        type=weights,
        default={},
        metavar="KIND=WEIGHT,…",
        help=f"the reference application's requests instead, of {', '.join(Mix.KINDS)}; sent at "
        "the rate however many are unanswered, by --clients at most",
    )
    add("--samples", type=Path, help="file for a line of JSON a request, as it is answered")
    add("--report", type=Path, help="file for the report in JSON")
    found = parser.parse_args()
    found.get = found.get or ["/"]
    if found.mix and not found.rate:
        parser.error("--mix needs a rate")
    found.password = os.environ.get("LOAD_PASSWORD")
    if found.password_file:
        try:
            found.password = found.password_file.read_text().rstrip("\n")
        except OSError as error:
            parser.error(f"--password-file: {error}")
    if (found.sales or found.mix) and found.password is None:
        parser.error("sales need the password, by --password-file or the variable LOAD_PASSWORD")
    return found


def runs(pid: int) -> bool:
    """Say whether a process is there, on any Unix."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


async def watch(load: Load, found: argparse.Namespace) -> None:
    """Turn the stop file, and that somebody has gone, into an end; the start into its file."""
    while True:
        if found.stop_file and found.stop_file.exists():
            load.stopping.set()
        if found.while_pid and not runs(found.while_pid):
            load.abandon(f"process {found.while_pid}, for which it ran, has gone")
        if load.silent():
            load.abandon(f"nothing was answered for {found.give_up:g} s")
        if found.started_file and load.started.is_set() and not found.started_file.exists():
            found.started_file.touch()
        await asyncio.sleep(0.1)


async def run(found: argparse.Namespace) -> int:
    """Run the load, write the report, and return the exit code."""
    load = Load(
        Options(
            urls=found.url,
            connect=found.connect,
            gets=found.get,
            ca=found.ca,
            clients=found.clients,
            fresh=found.fresh,
            rate=found.rate,
            duration=found.duration,
            count=found.count,
            timeout=found.timeout,
            retry_idempotent=found.retry_idempotent,
            sales=found.sales,
            sales_unkeyed=found.sales_unkeyed,
            sales_user=found.sales_user,
            sales_password=found.password or "",
            mix=found.mix,
            samples=found.samples,
            give_up=found.give_up,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, load.stopping.set)
    if found.started_file:
        found.started_file.unlink(missing_ok=True)
    watcher = asyncio.create_task(watch(load, found))
    try:
        report = (await load.go()).as_dict()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        watcher.cancel()
    if found.report:
        found.report.write_text(json.dumps(report, indent=1) + "\n")
    print(summary(report))
    return 1 if report["failed"] or not report["requests"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(run(arguments())))
