"""A balancer of tests: TLS in front of processes of this machine, each request to the next one."""

import asyncio
import itertools
import ssl
import subprocess
import threading

import aiohttp
import services
from aiohttp import web

# Of one connection only; the balancer has its own.
HOPS = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length"}


class Balancer:
    """Sends what starts with a prefix to its servers; serves from `start` to `stop`."""

    def __init__(self, directory):
        self.port = services.free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate = make_certificate(directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self, routes):
        """Serve; `routes` has a list of URLs for each prefix, the first that fits is taken."""
        self._routes = {prefix: itertools.cycle(urls) for prefix, urls in routes.items()}
        self._thread.start()
        self._run(self._serve())

    def stop(self):
        """Close everything."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self):
        self._client = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1, access_log=None)
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context).start()

    async def _close(self):
        await self._runner.cleanup()
        await self._client.close()

    async def _answer(self, request):
        prefix = next(each for each in self._routes if request.path.startswith(each))
        target = next(self._routes[prefix]) + request.raw_path
        headers = {name: value for name, value in request.headers.items() if name != "Connection"}
        headers |= {"X-Forwarded-Proto": "https", "X-Forwarded-For": request.remote}
        if request.headers.get("Upgrade") == "websocket":
            return await self._websocket(request, target, headers)
        async with self._client.request(
            request.method, target, headers=headers, data=await request.read() or None,
            allow_redirects=False,
        ) as found:  # fmt: skip
            answer = web.StreamResponse(status=found.status)
            for name, value in found.headers.items():
                if name.lower() not in HOPS:
                    answer.headers.add(name, value)
            await answer.prepare(request)
            # As it comes; a client that went away ends this, and the request to the server.
            async for part in found.content.iter_any():
                await answer.write(part)
            await answer.write_eof()
            return answer

    async def _websocket(self, request, target, headers):
        ours = {"upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"}
        kept = {name: value for name, value in headers.items() if name.lower() not in ours}
        async with self._client.ws_connect(target, headers=kept) as server:
            client = web.WebSocketResponse()
            await client.prepare(request)
            ways = [asyncio.create_task(copy(*way)) for way in ((client, server), (server, client))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await client.close()
        return client


async def copy(source, target):
    """Pass messages on until there are no more."""
    async for message in source:
        if message.type == aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        else:
            await target.send_bytes(message.data)


def make_certificate(directory):
    """Return the path of a new key and its certificate."""
    path = directory / "balancer.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", path, "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    return path
