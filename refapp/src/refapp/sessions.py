"""The web page's sessions, in Redis: any process of any host answers any request.

A session is read when something first touches it, so that what needs none (the API, /livez)
neither waits for Redis nor fails with it. Flask's `session` is one of these.
"""

import hashlib
import json
import secrets

from flask import current_app, request, session
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.exceptions import ServiceUnavailable

from .extensions import redis
from .redis import AwayError

IDLE = 8 * 3600  # seconds that a session lasts after its last use
ANONYMOUS = 1800  # the same, while nobody has logged in with it


class SessionsAway(ServiceUnavailable):
    """Redis can't be used now, and nobody can be recognised."""

    description = "We can't recognise anybody right now. Nothing is lost; try again in a moment."

    def __init__(self):
        super().__init__(retry_after=2)


class Session(SessionMixin):
    """What is known of a browser, by the random id in its cookie."""

    def __init__(self, cookie):
        self.id = cookie
        self.modified = False
        self._found = None  # until it is read
        self._stored = False
        self._forgotten = []

    @property
    def read(self):
        """Whether the request has needed it: Flask's `accessed` is set by who only asks."""
        return self._found is not None

    @property
    def _data(self):
        if self._found is None:
            text = self.id and run(lambda client: client.get(key(self.id)))
            self._stored = bool(text)
            self._found = json.loads(text) if text else {}
            if "login" in self._found:
                run(lambda client: client.expire(key(self.id), IDLE))
            # An id that we did not give out is not taken up: somebody may have planted it.
            if not text:
                self.id = secrets.token_urlsafe(32)
        return self._found

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
        if self._stored:
            self._forgotten.append(self.id)
        self.id, self._stored, self.modified = secrets.token_urlsafe(32), False, True

    def store(self):
        """Write what changed to Redis."""
        seconds = IDLE if "login" in self else ANONYMOUS

        def write(client):
            pipeline = client.pipeline()
            for old in self._forgotten:
                pipeline.delete(key(old))
            if self._data:
                # One that is gone was ended by another request: it does not come back.
                pipeline.set(key(self.id), json.dumps(self._data), ex=seconds, xx=self._stored)
            elif self._stored:
                pipeline.delete(key(self.id))
            pipeline.execute()

        run(write)


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
    """Keep sessions in Redis. Called last, so that `save` runs before the request is logged."""
    app.session_interface = Sessions()
    app.after_request(save)


def save(response):
    """Store the session, and give its id to the browser."""
    if not session.read:
        return response
    response.vary.add("Cookie")
    response.headers.setdefault("Cache-Control", "no-store")
    if not session.modified:
        return response
    try:
        session.store()
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
    if session:
        response.set_cookie(name, session.id, **options)
    elif name in request.cookies:
        response.delete_cookie(name, **options)
    return response
