"""The Socket.IO protocol: connect with a token, join with the last id seen, send with an ack.

client → server
  connect, auth {"token": access token}     refused with {"status": 401} unless it is valid,
                                            503 when that can't be known now: try again
  "join" {"last": id or null}               ack {"position", "missed", "complete", "host"}
  "send" {"client_id", "text"}              ack {"id", "client_id"}, or {"status", "errors"?,
                                            "retry_after"? in seconds}
server → client
  "message" {"id", "sender", "client_id", "text", "sent_at"}
  "leave" {"reconnect_after_ms"}            this process stops; the connection closes next
  "expired"                                 the token has, or its login ended: connect again with
                                            a new one

A connection that can't keep its promises is closed, instead of an answer that says so: what its
client sent next would overtake what could not be kept. The client comes back, joins with the
last id it saw, and sends again, in order, what was never acknowledged.
"""

import logging
import threading
import time

import socketio
from flask_jwt_extended import get_jwt, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError
from marshmallow import Schema, ValidationError, fields
from werkzeug.exceptions import ServiceUnavailable

from .. import messages, presence
from ..chat import closed_for
from ..redis import AwayError
from .clients import Client, Clients, GoneError
from .websocket import LARGEST, WebSocket

log = logging.getLogger(__name__)
# Left alone, the libraries write plain text to stderr. Below an error they tell of each packet.
protocol_log = logging.getLogger(f"{__name__}.protocol")
protocol_log.setLevel(logging.ERROR)

PATIENCE = 4.0  # seconds that a message waits for Redis before its connection is closed
TIDY = 1.0
REPORT = 10.0
REVIEW = 3.0  # seconds between two looks at whether the clients' logins still stand


class JoinIn(Schema):
    """Where a client was."""

    last = fields.String(load_default=None, allow_none=True, validate=messages.POSITION)


class SendIn(messages.TextIn):
    """A message, and its sender's own name for it."""

    client_id = fields.String(required=True, validate=messages.CLIENT_ID)


class Realtime:
    """The Socket.IO server of a process."""

    def __init__(self, app):
        self._app = app
        self.server = socketio.Server(
            async_mode="threading",
            # Long-polling would need every request of a client on the same host.
            transports=["websocket"],
            # A thread for each event would let a client's second message overtake its first.
            async_handlers=False,
            ping_interval=10,
            ping_timeout=15,
            max_http_buffer_size=LARGEST,
            logger=protocol_log,
            engineio_logger=protocol_log,
        )
        self.server.eio._async = self.server.eio._async | {"websocket": WebSocket}
        self.clients = Clients(self.server)
        self.server.on("connect", self.connect)
        self.server.on("disconnect", self.disconnect)
        self.server.on("join", self.join)
        self.server.on("send", self.send)

    def start(self):
        """Look after the clients from now on."""
        threading.Thread(target=self._look_after, name="clients", daemon=True).start()

    def connect(self, sid, environ, auth):
        """Let a client in whose token would be good for a request, too."""
        token = auth.get("token") if isinstance(auth, dict) else None
        try:
            claims = self._claims(environ, token)
        except (JWTExtendedException, PyJWTError) as error:
            log.info("client refused", extra={"error": type(error).__name__})
            raise socketio.exceptions.ConnectionRefusedError(
                "The token is not valid.", {"status": 401}
            ) from None
        except ServiceUnavailable as error:
            raise socketio.exceptions.ConnectionRefusedError(
                error.description, {"status": 503}
            ) from None
        engine = self.server.eio.sockets[self.server.manager.eio_sid_from_sid(sid, "/")]
        self.clients.add(Client(sid, claims, environ["gunicorn.socket"], engine))

    def _claims(self, environ, token):
        # As the header of a request, so that all that is checked of one is checked here.
        if isinstance(token, str):
            environ = environ | {"HTTP_AUTHORIZATION": f"Bearer {token}"}
        with self._app.request_context(environ):
            verify_jwt_in_request()
            return get_jwt()

    def disconnect(self, sid, reason):
        """Forget a client."""
        self.clients.remove(sid)

    def join(self, sid, data=None):
        """Bring a client up to date, and let it have all that comes."""
        client = self.clients.get(sid)
        if client is None:
            return self.server.not_handled
        try:
            last = JoinIn().load(data or {})["last"]
        except ValidationError as error:
            return {"status": 422, "errors": error.messages}
        if client.live:
            return {"status": 409, "errors": {"last": ["Joined already."]}}
        try:
            return self.clients.join(client, last) | {"host": self._app.config["HOST"]}
        except Exception as error:
            return self._give_up(client, error)

    def send(self, sid, data=None):
        """Keep a message; the acknowledgement says that it can't be lost any more."""
        client = self.clients.get(sid)
        if client is None:
            return self.server.not_handled
        try:
            given = SendIn().load(data)
        except ValidationError as error:
            return {"status": 422, "errors": error.messages}
        if closed_for(client.claims):
            return {"status": 403}
        try:
            sent = self._keep(client.claims, given)
        except messages.TooManyError as error:
            return {"status": 429, "retry_after": error.retry_after}
        except messages.ReusedError:
            return {"status": 422, "errors": {"client_id": ["Used for another message."]}}
        except Exception as error:
            return self._give_up(client, error)
        return {"id": sent["id"], "client_id": sent["client_id"]}

    def _keep(self, claims, given):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return messages.add(claims["sub"], claims.get("name", ""), **given)[0]
            except AwayError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _give_up(self, client, error):
        level = logging.INFO if isinstance(error, AwayError | GoneError) else logging.ERROR
        log.log(level, "connection given up", exc_info=None if level < logging.ERROR else error)
        self.clients.close(client)
        return self.server.not_handled

    def _look_after(self):
        reported = reviewed = 0.0
        while True:
            try:
                self.clients.tidy()
                if time.monotonic() - reviewed > REVIEW:
                    reviewed = time.monotonic()
                    self.clients.review()
                if time.monotonic() - reported > REPORT:
                    reported = time.monotonic()
                    presence.report({client.claims["sub"] for client in self.clients.all()})
            except Exception:
                log.exception("looking after clients failed")
            time.sleep(TIDY)
