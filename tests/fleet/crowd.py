"""Many who ask for a total at the same moment, and what that costs the database."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Callable
from typing import Any

from tests.fleet.support import Fleet


def queries(fleet: Fleet) -> float:
    """Sum what the app hosts say of their queries for totals."""
    count = 0.0
    for host in fleet.groups["app"]:
        text = fleet.ssh(host, "curl -fsS http://127.0.0.1:8000/metrics")
        pattern = r'^refapp_totals_total\{source="database"\} (\S+)$'
        count += sum(float(n) for n in re.findall(pattern, text, re.M))
    return count


def ask_at_once(
    fleet: Fleet, path: str, count: int, token: str, meanwhile: Callable[[], Any] = lambda: None
) -> list[tuple[int, dict[str, Any]]]:
    """Send `count` GETs at once, do something, and return their statuses and bodies.

    Each has a connection before the first of them sends.
    """
    return asyncio.run(_ask(fleet, path, count, token, meanwhile))


async def _ask(fleet, path, count, token, meanwhile):
    name = fleet.url.removeprefix("https://")
    tls = ssl.create_default_context(cafile=fleet.ca)
    head = [f"GET {path} HTTP/1.1", f"Host: {name}", "Connection: close"]
    # The caches in front leave a request with a token to the app.
    request = "\r\n".join([*head, f"Authorization: Bearer {token}", "", ""]).encode()
    few = asyncio.Semaphore(50)  # handshakes at a time

    async def connect():
        async with few:
            return await asyncio.open_connection(name, 443, ssl=tls, server_hostname=name)

    async def read(reader, writer):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        if b"transfer-encoding: chunked" in head.lower():
            body = b"".join(body.split(b"\r\n")[1::2])
        return int(head.split()[1]), json.loads(body)

    async with asyncio.timeout(60):
        streams = await asyncio.gather(*(connect() for _ in range(count)))
        for _, writer in streams:
            writer.write(request)
        await asyncio.gather(*(writer.drain() for _, writer in streams))
        await asyncio.to_thread(meanwhile)
        return await asyncio.gather(*(read(*stream) for stream in streams))
