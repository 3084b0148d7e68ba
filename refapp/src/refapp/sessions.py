"""The web page's sessions: any process of any host answers any request.

In Redis are those of who is logged in. Any other is in its cookie, signed: however many strangers
come, they fill no Redis.

A session is read when something first touches it, so that what needs none (the API, /livez)
neither waits for Redis nor fails with it. Flask's `session` is one of these.
"""

import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta

from flask import current_app, request, session
from flask.sessions import SessionInterface, SessionMixin
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.exceptions import ServiceUnavailable

from .extensions import redis
from .redis import AwayError

IDLE = 8 * 3600  # seconds that a session lasts after its last use
ANONYMOUS = timedelta(minutes=30)  # that one lasts which nobody has logged in with


class SessionsAway(ServiceUnavailable):
    """Redis can't be used now, and nobody can be recognised."""

    description = "We can't recognise anybody right now. Nothing is lost; try again in a moment."

    def __init__(self):
        super().__init__(retry_after=2)


class Session(SessionMixin):
    """What is known of a browser: its cookie is a random id, or holds all of it, signed."""

    def __init__(self, cookie):
        self.modified = False
        self._cookie = cookie
        self._found = None  # until it is read
        self._id = None  # under which it is in Redis
        self._forgotten = []

    @property
    def read(self):
        """Whether the request has needed it: Flask's `accessed` is set by who only asks."""
        return self._found is not None

    @property
    def _data(self):
        if self._found is None:
            self._found = self._find(self._cookie or "")
        return self._found

    def _find(self, cookie):
        if "." in cookie:  # which no id has
            return unsign(cookie)
        text = cookie and run(lambda client: client.get(key(cookie)))
        # An id that we did not give out is not taken up: somebody may have planted it.
        if not text:
            return {}
        self._id, found = cookie, json.loads(text)
        if "login" in found:  # the release before keeps others in Redis, too
            run(lambda client: client.expire(key(cookie), IDLE))
        return found

    def __getitem__(self, name):
        return self._data[name]

    def __setitem__(self, name, value):
        self._data[name] = value
        self.modified = True

    def __delitem__(self, name):
        del self._data[name]
        self.modified = True

    def __iter__(self):
        return iter(self._data)

    def __len__(self):
        return len(self._data)

    def renew(self):
        """Empty the session and go on under another id: who knows the old one has nothing."""
        self._data.clear()
        self._leave()
        self.modified = True

    def store(self):
        """Keep what changed; return the cookie that finds it again, None when nothing is left."""
        if "login" in self:
            cookie = self._id or secrets.token_urlsafe(32)
        else:
            self._leave()
            cookie = signer().dumps(self._data) if self._data else None

        def write(client):
            pipeline = client.pipeline()
            for old in self._forgotten:
                pipeline.delete(key(old))
            if "login" in self:
                # One that is gone was ended by another request: it does not come back.
                pipeline.set(key(cookie), json.dumps(self._data), ex=IDLE, xx=bool(self._id))
            pipeline.execute()

        if self._forgotten or "login" in self:
            run(write)
        return cookie

    def _leave(self):
        if self._id:
            self._forgotten.append(self._id)
        self._id = None


def signer():
    """Return what signs a session that Redis does not hold."""
    return URLSafeTimedSerializer(current_app.secret_key, salt="anonymous session")


def unsign(cookie):
    """Return what a signed cookie holds: nothing when it is forged or old."""
    try:
        found, signed_at = signer().loads(cookie, return_timestamp=True)
    except BadData:
        return {}
    # Not by `max_age`, which refuses what a host whose clock is ahead has signed just now.
    return found if datetime.now(UTC) - signed_at < ANONYMOUS else {}


def run(command):
    """Return command(client), or raise SessionsAway."""
    try:
        return redis.run(command)
    except AwayError as error:
        raise SessionsAway from error


def key(session_id):
    """Return the key of a session: who reads Redis gets no cookies from it."""
    return f"refapp:session:{hashlib.sha256(session_id.encode()).hexdigest()}"


class Sessions(SessionInterface):
    """Gives Flask its session; `save` writes it."""

    def open_session(self, app, request):
        """Return the session of a request; reads nothing."""
        return Session(request.cookies.get(app.config["SESSION_COOKIE_NAME"]))

    def save_session(self, app, session, response):
        """Do nothing: here an error could not be answered with a page any more."""


def init_app(app):
    """Give requests their sessions. Called last: `save` runs before the request is logged."""
    app.session_interface = Sessions()
    app.after_request(save)


def save(response):
    """Store the session, and give the browser its cookie."""
    if not session.read:
        return response
    response.vary.add("Cookie")
    response.headers.setdefault("Cache-Control", "no-store")
    if not session.modified:
        return response
    try:
        cookie = session.store()
    except SessionsAway as error:
        return current_app.make_response(current_app.handle_user_exception(error))
    config = current_app.config
    name = config["SESSION_COOKIE_NAME"]
    options = {
        "path": "/",
        "secure": config["SESSION_COOKIE_SECURE"],
        "httponly": config["SESSION_COOKIE_HTTPONLY"],
        "samesite": config["SESSION_COOKIE_SAMESITE"],
    }
    if cookie:
        response.set_cookie(name, cookie, **options)
    elif name in request.cookies:
        response.delete_cookie(name, **options)
    return response
