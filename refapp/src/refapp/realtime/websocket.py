"""WebSockets within bounds: who has shown no token may send anything, as fast as it goes."""

import re
import time

import simple_websocket
from engineio.async_drivers.threading import SimpleWebSocketWSGI
from engineio.packet import Packet

LARGEST = 16 * 1024  # bytes of a packet from a client
AHEAD = 64  # packets that are read before they can be handled
PAUSE = 0.01  # seconds
KEY = re.compile(r"[A-Za-z0-9+/]{22}==\Z")


def asked_for(environ):
    """Return whether a request is a handshake; on one that only looks so the libraries fail."""
    options = environ.get("HTTP_CONNECTION", "").lower().split(",")
    return bool(
        environ["REQUEST_METHOD"] == "GET"
        and environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and "upgrade" in [option.strip() for option in options]
        and environ.get("HTTP_SEC_WEBSOCKET_VERSION") == "13"
        and KEY.match(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""))
    )


class Connection(simple_websocket.Server):
    """Reads no more than it can hand on."""

    def __init__(self, environ):
        # Without the client's other headers: some are not for it to parse, and an offer to compress
        # would let a packet grow a thousandfold. Socket.IO's own server takes none, either.
        handshake = {
            "gunicorn.socket": environ["gunicorn.socket"],
            "HTTP_HOST": "refapp",
            "HTTP_CONNECTION": "Upgrade",
            "HTTP_UPGRADE": "websocket",
            "HTTP_SEC_WEBSOCKET_VERSION": "13",
            "HTTP_SEC_WEBSOCKET_KEY": environ["HTTP_SEC_WEBSOCKET_KEY"],
        }
        # engineio's own bound is for a packet that is there, in however many fragments it came.
        super().__init__(handshake, max_message_size=LARGEST)

    def _handle_events(self):
        going = super()._handle_events()
        while self.connected and len(self.input_buffer) > AHEAD and self.sock.fileno() >= 0:
            time.sleep(PAUSE)
        return going

    def _thread(self):
        try:
            super()._thread()
        finally:
            # It may have woken who waits for a packet before it said that there will be none.
            self.connected = False
            self.event.set()


class WebSocket(SimpleWebSocketWSGI):
    """What engineio makes of a handshake."""

    def __call__(self, environ, start_response):
        """Serve a connection until it ends."""
        self.ws = Connection(environ)
        self.app(self)
        raise StopIteration  # gunicorn has no answer to send

    def wait(self):
        """Return the next packet; None, as at the end, for what is none."""
        packet = super().wait()
        try:
            Packet(encoded_packet=packet)
        except (ValueError, RecursionError):
            return None
        return packet
