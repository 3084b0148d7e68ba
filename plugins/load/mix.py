"""What a load sends: GETs and sales by share, or the named kinds of a mix by weight."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import Any

REMEMBERED = 500  # acknowledged writes that reads look for
OBJECT = b"evenkeel " * 1000


@dataclass
class Request:
    """One request of the mix."""

    kind: str
    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    key: str | None = None
    data: bytes | None = None
    safe: bool = False  # a repeat does no harm, although it has no key

    @property
    def repeatable(self) -> bool:
        """Whether the application promises that a repeat changes nothing."""
        return self.safe or self.method in ("GET", "PUT") or self.key is not None

    @property
    def item(self) -> str | None:
        """The item that a write sells: of its own, so that rows can be counted."""
        body = self.body or {}
        if self.kind == "job":
            return body["args"]["sales"][0]["item"]
        return body.get("item")


def keyed(kind: str, path: str, body: dict[str, Any], token: str) -> Request:
    """Return a POST that may be repeated."""
    key = str(uuid.uuid4())
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    return Request(kind, "POST", path, body, headers, key)


class Mix:
    """Chooses the next request. Sales, jobs and files are numbered within a run.

    The kinds of `weights`, all of the reference application: app and total (GETs that need no
    database when the total is cached), sales (looks for a write that was acknowledged), login,
    write (a sale), job (a sale that a job makes), object (a file, put and completed), file (gets
    one that was completed).
    """

    KINDS = ("app", "total", "sales", "login", "write", "job", "object", "file")

    def __init__(self, run: str, user: str, password: str, weights: dict[str, float]) -> None:
        self.run, self.token = run, ""
        self._credentials = {"username": user, "password": password}
        self._weights = weights
        self._number = 0
        self.keys: list[str] = []  # of acknowledged writes
        self.files: dict[str, str] = {}  # presigned address by id

    def login(self) -> Request:
        """Return the request for a token."""
        return Request("login", "POST", "/auth/login", self._credentials, safe=True)

    def plain(self, gets: list[str], sales: float, unkeyed: float) -> Request:
        """Return a GET, or a POST of a sale with or without a key."""
        if random.random() >= sales:  # noqa: S311 - a mix, not a secret
            return Request("get", "GET", random.choice(gets))  # noqa: S311
        request = keyed("post_keyed", "/sales", self._sale(), self.token)
        if random.random() < unkeyed:  # noqa: S311
            request.kind, request.key = "post", None
            del request.headers["Idempotency-Key"]
        return request

    def weighted(self) -> Request:
        """Return a request of one of the kinds."""
        [kind] = random.choices(list(self._weights), list(self._weights.values()))  # noqa: S311
        return getattr(self, kind)()

    def app(self) -> Request:
        """Needs a process of the app."""
        return Request("app", "GET", "/whoami")

    def total(self) -> Request:
        """Is answered by the caches, or from Redis."""
        return Request("total", "GET", f"/sales/total?item=item-{random.randint(1, 10)}")  # noqa: S311

    def sales(self) -> Request:
        """Needs the database, and finds what it accepted before."""
        key = random.choice(self.keys) if self.keys else "none-yet"  # noqa: S311
        return Request("sales", "GET", f"/sales?idempotency_key={key}")

    def write(self) -> Request:
        """A sale."""
        return keyed("write", "/sales", self._sale(), self.token)

    def job(self) -> Request:
        """A sale that a job makes."""
        body = {"kind": "sales-import", "args": {"sales": [self._sale()]}}
        return keyed("job", "/jobs", body, self.token)

    def object(self) -> Request:
        """Announces a file; the client goes on with `parts`."""
        self._number += 1
        body = {
            "filename": f"load-{self.run}-{self._number}",
            "content_type": "text/plain",
            "size": len(OBJECT),
        }
        return keyed("object", "/uploads", body, self.token)

    def parts(self, announced: dict[str, Any]) -> list[Request]:
        """Return what follows on an announced file: its bytes, and the confirmation."""
        put = announced["upload"]
        bearer = {"Authorization": f"Bearer {self.token}"}
        path = f"/uploads/{announced['id']}/complete"
        return [
            Request("object", "PUT", put["url"], headers=put["headers"], data=OBJECT),
            Request("object", "POST", path, headers=bearer, safe=True),
        ]

    def file(self) -> Request:
        """Gets a file that was completed, or a page until there is one."""
        if not self.files:
            return self.app()
        return Request("file", "GET", random.choice(list(self.files.values())))  # noqa: S311

    def answered(self, request: Request, known: dict[str, Any]) -> str:
        """Learn from a good answer; say what is wrong with it, nothing when it is right."""
        if request.kind == "write" and request.key:
            self.keys = [*self.keys[-REMEMBERED:], request.key]
        elif request.kind == "sales" and "none-yet" not in request.path and known["count"] != 1:
            return f"a write that was acknowledged is there {known['count']} times"
        elif request.kind == "object" and "get_url" in known:
            self.files[known["id"]] = known["get_url"]
        return ""

    def _sale(self) -> dict[str, Any]:
        self._number += 1
        return {"item": f"load-{self.run}-{self._number}", "amount": 1}
