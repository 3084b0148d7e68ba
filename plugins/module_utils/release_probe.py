"""Whether a release is ready, asked on its private socket."""

from __future__ import annotations

import http.client
import socket


class Probe(http.client.HTTPConnection):
    """One GET over a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(path, url, timeout=5):
    """Ask a release if it is ready: None, or what it said instead of 200."""
    connection = Probe(path, timeout)
    try:
        # As the balancer would ask: an app that sends clients to HTTPS answers this one.
        headers = {"X-Forwarded-Proto": "https", "User-Agent": "evenkeel-probe"}
        connection.request("GET", url, headers=headers)
        answer = connection.getresponse()
        body = " ".join(answer.read(300).decode(errors="replace").split())
        return None if answer.status == 200 else f"{answer.status} {body}".strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
