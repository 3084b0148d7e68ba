#!/usr/bin/python3
"""Server behind a balancer or cache under test: it says what it was asked.

/sleep/N answers after N seconds, /drop closes without an answer, /status/N answers N,
/cache/CONTROL answers with that Cache-Control, /vary/NAMES with that Vary. Every answer counts
requests, by path.
"""

import collections
import http.server
import json
import socket
import sys
import threading
import time
import urllib.parse

hits = collections.Counter()
flags = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in url.path.split("/")]
        status, headers = 200, {}
        if url.path == "/hits":
            return self.send(200, dict(hits), {})
        if url.path == "/flag":  # /flag?status=500 makes later answers fail; /flag clears it
            flags.clear()
            flags.update(urllib.parse.parse_qsl(url.query))
            return self.send(200, flags, {})
        hits[f"{self.command} {self.path}"] += 1
        if "sleep" in parts:
            time.sleep(float(parts[parts.index("sleep") + 1]))
        if "drop" in parts:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if "status" in parts:
            status = int(parts[parts.index("status") + 1])
        if "cache" in parts:
            headers["Cache-Control"] = parts[parts.index("cache") + 1]
        if "vary" in parts:
            headers["Vary"] = parts[parts.index("vary") + 1]
        if "cookie" in parts:
            headers["Set-Cookie"] = "session=secret"
        if self.headers.get("Upgrade") == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(self.rfile.read(5))  # an echo, to see both ways
            self.close_connection = True
            return None
        status = int(flags.get("status", status))
        said = {
            "host": socket.gethostname(),
            "port": self.server.server_port,
            "connection": self.client_address[1],
            "method": self.command,
            "path": self.path,
            "headers": {k.lower(): v for k, v in self.headers.items()},
            "length": len(body),
            "hits": hits[f"{self.command} {self.path}"],
            "padding": "x" * 2000,
        }
        return self.send(status, said, headers)

    def send(self, status, said, headers):
        payload = json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

    def log_message(self, *args):
        pass


servers = [http.server.ThreadingHTTPServer(("", int(port)), Handler) for port in sys.argv[1:]]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
