"""The clients that make a load: each has one connection and sends one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from .mix import OBJECT, Mix, Request
from .report import Failure, Report
from .target import Target, json_object

RETRIED_STATUSES = {502, 503, 504}
CATCH_UP = 1.0  # seconds that a mix may be behind its rate
START_COUNT = 50  # requests of a mix after which it counts as started


@dataclass
class Options:
    """What to send, where, how fast (requests a second), and for how long (seconds).

    fresh, sales and sales_unkeyed are shares of 1; 0 of rate, count or give_up is no bound.
    """

    urls: list[str]
    gets: list[str]
    connect: list[str] = field(default_factory=list)
    ca: str | None = None
    clients: int = 24
    fresh: float = 0.3
    rate: float = 100.0
    duration: float = 30.0
    count: int = 0
    timeout: float = 10.0
    retry_idempotent: int = 0
    sales: float = 0.0
    sales_unkeyed: float = 0.5
    sales_user: str = "admin"
    sales_password: str = ""
    token_seconds: float = 240.0
    mix: dict[str, float] = field(default_factory=dict)
    samples: Path | None = None
    give_up: float = 0.0


class Load:
    """All clients, and the report they write to."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.run = uuid.uuid4().hex[:8]  # in the item of every sale
        self.report = Report(self.run)
        self.stopping = asyncio.Event()
        self.started = asyncio.Event()
        self._tls: ssl.SSLContext | bool = True
        if options.ca:
            self._tls = ssl.create_default_context(cafile=options.ca)
        self._sent = 0
        self._heard = time.monotonic()  # when anything was answered, be it an error
        self.mix = Mix(self.run, options.sales_user, options.sales_password, options.mix)
        self._answered: set[int] = set()

    def targets(self) -> list[Target]:
        """Return every balancer to spread the clients over."""
        addresses = self.options.connect or [None]
        return [Target(url, address) for url in self.options.urls for address in addresses]

    def silent(self) -> bool:
        """Say whether nothing at all was answered for so long that waiting is of no use."""
        return 0 < self.options.give_up < time.monotonic() - self._heard

    def abandon(self, why: str) -> None:
        """End without anybody who asked for it."""
        self.report.abandoned = self.report.abandoned or why
        self.stopping.set()

    async def go(self) -> Report:
        """Run until the time or the count is up or `stopping` is set."""
        self.report = Report(self.run, self.options.samples)
        self._heard = time.monotonic()
        targets = self.targets()
        tasks: list[asyncio.Task[None]] = []
        if self.options.sales or self.options.mix:
            await self._login(targets[0])
            tasks.append(asyncio.create_task(self._renew(targets[0])))
        timer = asyncio.get_running_loop().call_later(self.options.duration, self.stopping.set)
        if self.options.mix:
            await self._open(targets)
            await self._find_files(targets[0])
        else:
            clients = (
                self._client(number, targets[number % len(targets)])
                for number in range(self.options.clients)
            )
            await asyncio.gather(*clients)
        timer.cancel()
        for task in tasks:
            task.cancel()
        return self.report

    def _session(self, fresh: bool) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count_connection)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, force_close=fresh, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
        )
        # aiohttp silently repeats a GET whose kept connection was closed. Such a request did
        # fail, and a client that never retries would have seen it; there is no public switch.
        session._retry_connection = False
        return session

    async def _count_connection(self, *_: object) -> None:
        self.report.connections += 1

    async def _client(self, number: int, target: Target) -> None:
        options = self.options
        pause = options.clients / options.rate if options.rate else 0.0
        due = time.monotonic() + pause * number / options.clients
        async with self._session(self._fresh(number)) as session:
            while not await self._stopped(due):
                if options.count and self._sent >= options.count:
                    return
                self._sent += 1
                request = self.mix.plain(options.gets, options.sales, options.sales_unkeyed)
                if await self._send(session, target, request) is not None:
                    self._answered.add(number)
                    if len(self._answered) == options.clients:
                        self.started.set()
                # A slow answer is not made up for by a burst.
                due = max(due + pause, time.monotonic())

    async def _stopped(self, due: float) -> bool:
        """Wait until a request is due; say whether the load has ended by then."""
        delay = due - time.monotonic()
        if delay > 0 and not self.stopping.is_set():
            try:
                await asyncio.wait_for(self.stopping.wait(), delay)
            except TimeoutError:
                return False
        return self.stopping.is_set()

    def _fresh(self, number: int) -> bool:
        # Spread over the numbers, so that every balancer gets both sorts of client.
        return (number * 7 % 10) / 10 < self.options.fresh

    async def _open(self, targets: list[Target]) -> None:
        """Send the mix at the rate, however much is still unanswered: users don't wait either."""
        options, due = self.options, time.monotonic()
        idle: deque[tuple[aiohttp.ClientSession, Target]] = deque()
        pending: set[asyncio.Task[None]] = set()
        async with contextlib.AsyncExitStack() as sessions:
            while not await self._stopped(due):
                if options.count and self._sent >= options.count:
                    break
                # A machine that is too busy for the load measures itself: what it could not send
                # is counted, and not sent all at once.
                lag = time.monotonic() - due
                self.report.lag = max(self.report.lag, lag)
                if lag > CATCH_UP:
                    self.report.held_back += int(lag * options.rate)
                    due += lag
                due += 1 / options.rate
                if not idle and self.report.clients == options.clients:
                    self.report.held_back += 1
                    continue
                if not idle:
                    session = self._session(self._fresh(self.report.clients))
                    target = targets[self.report.clients % len(targets)]
                    idle.append((await sessions.enter_async_context(session), target))
                    self.report.clients += 1
                self._sent += 1
                task = asyncio.create_task(self._once(idle, *idle.popleft()))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await asyncio.gather(*pending)

    async def _once(self, idle: deque[Any], session: aiohttp.ClientSession, target: Target) -> None:
        request = self.mix.weighted()
        known = await self._send(session, target, request)
        if known is not None:
            if self._sent >= START_COUNT:
                self.started.set()
            for part in self.mix.parts(known) if request.kind == "object" else []:
                if await self._send(session, target, part) is None:
                    break
        idle.append((session, target))

    async def _find_files(self, target: Target) -> None:
        """Get every file that was completed, and note those that are not as they were."""
        async with self._session(fresh=True) as session:
            for name, url in self.mix.files.items():
                request = Request("file", "GET", url)
                # Once it is abandoned each would only wait for an answer that nobody reads.
                times = 0 if self.report.abandoned else 2
                found = [await self._attempt(session, target, request, 10) for _ in range(times)]
                if OBJECT not in [body for _, _, body, _ in found]:
                    self.report.missing.append(name)

    async def _send(
        self, session: aiohttp.ClientSession, target: Target, request: Request
    ) -> dict[str, Any] | None:
        """Send a request and count it; return its answer's JSON object, None when it failed."""
        attempts = 1 + (self.options.retry_idempotent if request.repeatable else 0)
        began = time.monotonic()
        while True:
            attempts -= 1
            left = self.options.timeout - (time.monotonic() - began)
            status, headers, body, error = await self._attempt(session, target, request, left)
            again = error and (status is None or status in RETRIED_STATUSES)
            late = time.monotonic() - began >= self.options.timeout
            if not (again and attempts) or late or self.stopping.is_set():
                break
            self.report.retries += 1
        seconds = time.monotonic() - began
        sale = {"item": request.item, "key": request.key}
        known = json_object(headers, body)
        error = error or self.mix.answered(request, known)
        if not error and status is not None:
            self.report.success(request.kind, target.name, status, seconds)
            if request.kind in ("get", "app"):
                self.report.saw(known.get("host"), known.get("release"))
            elif request.item:
                self.report.acknowledged.append(sale | {"id": known.get("id")})
            return known
        if request.item:
            self.report.unacknowledged.append(sale)
        self.report.failure(
            Failure(
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                offset=round(self.report.offset(), 3),
                kind=request.kind,
                url=f"{request.method} {request.path}",
                target=target.name,
                error=error,
                status=status,
                seconds=round(seconds, 3),
                request_id=headers.get("X-Request-ID"),
                key=request.key,
                retry_after=headers.get("Retry-After"),
                body=body[:200].decode(errors="replace"),
            )
        )
        return None

    async def _attempt(
        self, session: aiohttp.ClientSession, target: Target, request: Request, seconds: float
    ) -> tuple[int | None, Any, bytes, str]:
        """Return status, headers, body, and why the attempt failed (empty when it did not)."""
        arguments = target.arguments(request.path)
        headers = arguments.pop("headers", {}) | request.headers
        status, answer_headers = None, {}
        try:
            async with session.request(
                request.method,
                headers=headers,
                json=request.body,
                data=request.data,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
                **arguments,
            ) as answer:
                status, answer_headers = answer.status, answer.headers
                self._heard = time.monotonic()
                body = await answer.read()
        except TimeoutError:
            return status, answer_headers, b"", "timeout"
        except (aiohttp.ClientError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            return status, answer_headers, b"", reason[:200]
        error = f"status {status}" if status >= 400 else ""
        return status, answer_headers, body, error

    async def _login(self, target: Target) -> None:
        async with self._session(fresh=True) as session:
            known = await self._send(session, target, self.mix.login())
        if known is None:
            raise RuntimeError(f"login failed: {self.report.failures[-1].error}")
        self.mix.token = known["access_token"]

    async def _renew(self, target: Target) -> None:
        """Take a new token before the old one expires; a miss counts, and is tried again."""
        while True:
            await asyncio.sleep(self.options.token_seconds)
            with contextlib.suppress(RuntimeError):
                await self._login(target)
