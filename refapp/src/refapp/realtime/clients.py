"""The clients of this process, and what each of them gets: every message, in order, once."""

import contextlib
import logging
import math
import random
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass

from engineio.socket import Socket
from werkzeug.exceptions import ServiceUnavailable

from .. import messages
from ..auth import standing
from ..metrics import CLIENTS, DELIVERED
from ..redis import AwayError
from ..streams import BEGINNING, later
from .packets import encoded

log = logging.getLogger(__name__)

RECENT = 2 * messages.PAGE  # messages that a process remembers, for clients that come back
READERS = 4  # clients at a time that older messages are read from Redis for
CATCH_UP = 2.0  # seconds to wait for this process to see what a client saw through another
UNREAD = 2_000  # packets a client may be behind; it is closed then, and comes back for the rest
GOODBYE = 2.0  # seconds a client has to take what was sent before its connection is cut
STRANGER = 10.0  # seconds that a connection may be nobody's: each holds a thread


class GoneError(Exception):
    """The client went while it was brought up to date."""


@dataclass(eq=False)
class Client:
    """A connection that showed a token; it is live once it has joined."""

    sid: str
    claims: dict
    connection: socket.socket
    engine: Socket  # of Engine.IO, with the queue of what is to be sent
    live: bool = False


class Clients:
    """Everyone who is connected to this process, and how far it has followed the stream."""

    def __init__(self, server):
        self._server = server
        self._clients = {}
        self._open = {}  # every connection, and when to cut it: never while it is a client's
        self._position = None
        self._recent = deque(maxlen=RECENT)  # (id, packet)
        # With a hundred at once each would wait so long for its turn that Redis seems away.
        self._reading = threading.BoundedSemaphore(READERS)
        # Held while messages are handed out, so that nobody joins in the middle of it.
        self._moved = threading.Condition(threading.RLock())

    def opened(self, connection):
        """Know of a connection: it may never show a token, or stay when its client has gone."""
        with self._moved:
            self._open[connection] = time.monotonic() + STRANGER

    def closed(self, connection):
        """Forget a connection."""
        with self._moved:
            self._open.pop(connection, None)

    def add(self, client):
        """Take a client in; it gets nothing before it joins."""
        with self._moved:
            self._clients[client.sid] = client
            self._open[client.connection] = math.inf
            CLIENTS.set(len(self._clients))

    def remove(self, sid, patience=STRANGER):
        """Forget a client; its connection may stay open for some seconds."""
        with self._moved:
            client = self._clients.pop(sid, None)
            if client and client.connection in self._open:
                self._open[client.connection] = time.monotonic() + patience
            CLIENTS.set(len(self._clients))

    def get(self, sid):
        """Return a client, or None when it is gone."""
        return self._clients.get(sid)

    def all(self):
        """Return the clients of this moment."""
        with self._moved:
            return list(self._clients.values())

    def begin(self):
        """Return the position to follow the stream from; raises AwayError."""
        with self._moved:
            if self._position is None:
                self._recent.extend(map(self._packet, messages.latest(RECENT)))
                self._position = self._recent[-1][0] if self._recent else BEGINNING
                self._moved.notify_all()
            return self._position

    def deliver(self, entries):
        """Hand new messages to every client that has joined."""
        with self._moved:
            live = [client for client in self._clients.values() if client.live]
            for entry in entries:
                entry_id, packet = self._packet(messages.message(*entry))
                self._recent.append((entry_id, packet))
                for client in live:
                    self._send(client, packet)
            DELIVERED.inc(len(entries) * len(live))
            self._position = entries[-1][0]
            self._moved.notify_all()

    def join(self, client, last):
        """Give a client what came after `last`, then everything as it comes.

        Returns where it is now, how many messages it had missed, and whether all of them were
        still kept. Live messages are held back until the last missed one is sent: a client
        that saw a newer one first would give a wrong `last` the next time. Raises AwayError,
        GoneError.
        """
        missed, complete = 0, True
        with self._moved:
            if not self._moved.wait_for(lambda: self._position is not None, CATCH_UP):
                raise AwayError
            seen = self._position if last is None else last
            # Another process may have been quicker than this one.
            if not self._moved.wait_for(lambda: not later(seen, self._position), CATCH_UP):
                seen, complete = self._position, False  # an id of a stream that is no more
            remembered = self._remembers(seen)
        if not remembered:
            seen, missed = self._replay(client, seen)
            complete = messages.kept_since(last)
        with self._moved:
            if not self._remembers(seen):  # it took so long that a thousand came meanwhile
                raise AwayError
            last_ones = [packet for entry_id, packet in self._recent if later(entry_id, seen)]
            for packet in last_ones:
                self._send(client, packet)
            DELIVERED.inc(len(last_ones))
            missed += len(last_ones)
            client.live = True
            return {"position": self._position, "missed": missed, "complete": complete}

    def _remembers(self, position):
        """Return whether all that came after a position is in memory: mostly so on a deploy."""
        oldest = self._recent[0][0] if self._recent else self._position
        return not later(oldest, position)

    def _replay(self, client, seen):
        missed = 0
        while page := self._page(client, seen):
            for message in page:
                self._send(client, encoded("message", message))
            DELIVERED.inc(len(page))
            # No faster than it reads, or it would be closed as one that does not.
            while client.engine.queue.qsize() > messages.PAGE:
                self._check(client)
                time.sleep(0.05)
            seen, missed = page[-1]["id"], missed + len(page)
            if len(page) < messages.PAGE:
                break
        return seen, missed

    def _page(self, client, seen):
        with self._reading:
            # Who has waited for too long comes back, to another thread: work for connections
            # that are no more would leave no time for those that are.
            self._check(client)
            return messages.after(seen, self._position)

    def _check(self, client):
        # The thread that reads from the connection closes it when its other end has; nobody
        # else would notice while an event of this client is being handled.
        if client.sid not in self._clients or client.connection.fileno() < 0:
            raise GoneError

    @staticmethod
    def _packet(message):
        return message["id"], encoded("message", message)

    def _send(self, client, packet):
        try:
            if not client.engine.closed:
                client.engine.send(packet)
        except Exception as error:  # one that is just going must not cost the others theirs
            log.info("client is gone", extra={"error": type(error).__name__})
            self.close(client)

    def close(self, client):
        """Close a client's connection as if the network had: it comes back by itself.

        What was sent to it before is still delivered, what it sends from now on is not heard.
        """
        self.remove(client.sid, GOODBYE)
        client.engine.close(wait=False, reason=self._server.reason.SERVER_DISCONNECT)

    def tidy(self):
        """Send clients away whose token has expired, or who do not read; cut what is nobody's."""
        for client in self.all():
            if client.claims["exp"] < time.time():
                self._refuse(client)
            elif client.engine.queue.qsize() > UNREAD:
                log.warning("client does not read", extra={"user": client.claims.get("name")})
                self.close(client)
        with self._moved:
            due = [each for each, when in self._open.items() if when < time.monotonic()]
        for connection in due:
            with contextlib.suppress(OSError):  # most are gone by now
                connection.shutdown(socket.SHUT_RDWR)

    def review(self):
        """Send clients away who have logged out, or whose login was ended, since they came."""
        clients = self.all()
        if not clients:
            return
        try:
            stand = standing.those_that_stand({client.claims["login"] for client in clients})
        except ServiceUnavailable:
            return  # without the database nobody logs out, either
        for client in clients:
            if client.claims["login"] not in stand:
                self._refuse(client)

    def _refuse(self, client):
        # Not closed at once: it would only come back with the same token.
        self._server.emit("expired", to=client.sid)
        self._server.disconnect(client.sid)

    def leave(self, seconds):
        """Send everyone to another process: spread over some seconds, and told when to come."""
        clients = self.all()
        log.warning("sending clients away", extra={"clients": len(clients)})
        random.shuffle(clients)
        for client in clients:
            self._farewell(client)
            time.sleep(seconds / len(clients))
        # Connections that were being made when it began, and those that do not end: as long as
        # the process lasts, because a balancer may still send one on a connection that it kept.
        while True:
            for client in self.all():
                self._farewell(client)
            with self._moved:
                latest = time.monotonic() + GOODBYE
                self._open = {each: min(when, latest) for each, when in self._open.items()}
            self.tidy()
            time.sleep(0.1)

    def _farewell(self, client):
        pause = random.randint(0, 500)  # noqa: S311  not for secrets
        try:
            self._server.emit("leave", {"reconnect_after_ms": pause}, to=client.sid)
            self.close(client)
        except Exception as error:
            log.info("client is gone", extra={"error": type(error).__name__})
