"""The clients that make a load: each has one connection and sends one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from yarl import URL

from .report import Failure, Report

RETRIED_STATUSES = {502, 503, 504}
JSON_READ = 65536  # larger answers are not searched for a host and a release


@dataclass
class Options:
    """What to send, where, how fast, and for how long."""

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


@dataclass
class Request:
    """One request of the mix."""

    kind: str
    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    key: str | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the application promises that a repeat changes nothing."""
        return self.method == "GET" or self.key is not None


def json_object(headers: Any, body: bytes) -> dict[str, Any]:
    """Return the JSON object of a short answer, an empty one of any other."""
    if "json" not in headers.get("Content-Type", "") or len(body) > JSON_READ:
        return {}
    try:
        known = json.loads(body)
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


class Target:
    """A balancer: the site's URL, and the address to connect to when it is another."""

    def __init__(self, url: str, address: str | None) -> None:
        self.site = URL(url)
        self.address = address
        self.name = f"{self.site}@{address}" if address else str(self.site)

    def arguments(self, path: str) -> dict[str, Any]:
        """Return URL, Host header and TLS name of a request for `path`."""
        url = self.site.join(URL(path))
        if not self.address:
            return {"url": url}
        return {
            "url": url.with_host(self.address),
            "server_hostname": self.site.host if self.site.scheme == "https" else None,
            "headers": {"Host": self.site.authority},
        }


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
        self._token = ""
        self._sent = 0
        self._sales = 0
        self._answered: set[int] = set()

    def targets(self) -> list[Target]:
        """Return every balancer to spread the clients over."""
        addresses = self.options.connect or [None]
        return [Target(url, address) for url in self.options.urls for address in addresses]

    async def go(self) -> Report:
        """Run until the time or the count is up or `stopping` is set."""
        self.report = Report(self.run)
        targets = self.targets()
        tasks: list[asyncio.Task[None]] = []
        if self.options.sales:
            await self._login(targets[0])
            tasks.append(asyncio.create_task(self._renew(targets[0])))
        clients = [
            asyncio.create_task(self._client(number, targets[number % len(targets)]))
            for number in range(self.options.clients)
        ]
        timer = asyncio.get_running_loop().call_later(self.options.duration, self.stopping.set)
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
            timeout=aiohttp.ClientTimeout(total=self.options.timeout),
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
        # Spread over the numbers, so that every balancer gets both sorts of client.
        fresh = (number * 7 % 10) / 10 < options.fresh
        pause = options.clients / options.rate if options.rate else 0.0
        due = time.monotonic() + pause * number / options.clients
        async with self._session(fresh) as session:
            while not await self._stopped(due):
                if options.count and self._sent >= options.count:
                    return
                self._sent += 1
                if await self._send(session, target, self._next()) is not None:
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

    def _next(self) -> Request:
        options = self.options
        if random.random() >= options.sales:  # noqa: S311 - a mix, not a secret
            return Request("get", "GET", random.choice(options.gets))  # noqa: S311
        self._sales += 1
        # Every sale has an item of its own: rows can be counted whatever the keys did.
        item = f"load-{self.run}-{self._sales}"
        request = Request("post", "POST", "/sales", {"item": item, "amount": 1})
        request.headers["Authorization"] = f"Bearer {self._token}"
        if random.random() >= options.sales_unkeyed:  # noqa: S311
            request.kind = "post_keyed"
            request.key = request.headers["Idempotency-Key"] = str(uuid.uuid4())
        return request

    async def _send(
        self, session: aiohttp.ClientSession, target: Target, request: Request
    ) -> dict[str, Any] | None:
        """Send a request and count it; return its answer's JSON object, None when it failed."""
        attempts = 1 + (self.options.retry_idempotent if request.repeatable else 0)
        began = time.monotonic()
        while True:
            attempts -= 1
            status, headers, body, error = await self._attempt(session, target, request)
            again = error and (status is None or status in RETRIED_STATUSES)
            if not (again and attempts and not self.stopping.is_set()):
                break
            self.report.retries += 1
        seconds = time.monotonic() - began
        sale = {"item": (request.body or {}).get("item"), "key": request.key}
        if not error and status is not None:
            self.report.success(request.kind, target.name, status, seconds)
            known = json_object(headers, body)
            if request.kind == "get":
                self.report.saw(known.get("host"), known.get("release"))
            elif request.kind.startswith("post"):
                self.report.acknowledged.append(sale | {"id": known.get("id")})
            return known
        if request.kind.startswith("post"):
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
        self, session: aiohttp.ClientSession, target: Target, request: Request
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
                allow_redirects=False,
                **arguments,
            ) as answer:
                status, answer_headers = answer.status, answer.headers
                body = await answer.read()
        except TimeoutError:
            return status, answer_headers, b"", "timeout"
        except (aiohttp.ClientError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            return status, answer_headers, b"", reason[:200]
        error = f"status {status}" if status >= 400 else ""
        return status, answer_headers, body, error

    async def _login(self, target: Target) -> None:
        body = {"username": self.options.sales_user, "password": self.options.sales_password}
        request = Request("login", "POST", "/auth/login", body)
        async with self._session(fresh=True) as session:
            known = await self._send(session, target, request)
        if known is None:
            raise RuntimeError(f"login failed: {self.report.failures[-1].error}")
        self._token = known["access_token"]

    async def _renew(self, target: Target) -> None:
        """Take a new token before the old one expires; a miss counts, and is tried again."""
        while True:
            await asyncio.sleep(self.options.token_seconds)
            with contextlib.suppress(RuntimeError):
                await self._login(target)
