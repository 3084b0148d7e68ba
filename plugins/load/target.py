"""Where a load goes, and what it reads of the answers."""

from __future__ import annotations

import json
from typing import Any

from yarl import URL

JSON_READ = 65536  # larger answers are not searched for a host and a release


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
        url = self.site.join(URL(path, encoded=path.startswith("http")))  # as it was signed
        if not self.address:
            return {"url": url}
        return {
            "url": url.with_host(self.address),
            "server_hostname": self.site.host if self.site.scheme == "https" else None,
            "headers": {"Host": self.site.authority},
        }
