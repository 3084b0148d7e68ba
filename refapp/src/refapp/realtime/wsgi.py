"""The process type `realtime`: the application, with Socket.IO at /socket.io/ before it."""

import signal
import threading

import socketio
from gunicorn import util
from werkzeug.exceptions import BadRequest

from ..extensions import redis
from ..messages import STREAM
from ..streams import Follower
from ..wsgi import app as web
from .clients import GOODBYE
from .server import Realtime
from .websocket import asked_for

SPREAD = 2.0  # seconds over which a stopping process sends its clients away

realtime = Realtime(web)
realtime.start()
Follower(redis, STREAM, realtime.clients.begin, realtime.clients.deliver).start()
sockets = socketio.WSGIApp(realtime.server, web)
stopping = threading.Event()


@web.route("/socket.io/")
def refuse():
    """Answer what is no WebSocket as any other mistake."""
    raise BadRequest("Only the transport websocket is served.")


def app(environ, start_response):
    """Answer a request, or serve a WebSocket until it ends."""
    if not asked_for(environ):
        return web(environ, start_response)
    connection = environ["gunicorn.socket"]
    realtime.clients.opened(connection)
    try:
        return sockets(environ, start_response)
    except StopIteration:  # a WebSocket has ended
        # The other end may take its time to hang up. gunicorn would wait for it in the thread
        # that accepts connections.
        util.close_graceful(connection, GOODBYE)
        raise
    finally:
        realtime.clients.closed(connection)


def leave():
    """When the server is told to stop, begin by sending the clients to another process.

    gunicorn itself would wait for them to go, and at the end of its grace cut them off.
    """
    stopping.wait()
    realtime.clients.leave(SPREAD)


def leave_at(number):
    """Leave on a signal, before the server does what it does on it."""
    stop = signal.getsignal(number)
    # Not started by the handler: it may interrupt the start of another thread, and its lock.
    threading.Thread(target=leave, name="leave", daemon=True).start()

    def told(*args):
        stopping.set()
        stop(*args)

    signal.signal(number, told)


if callable(signal.getsignal(signal.SIGTERM)):  # a server has set it before it loaded us
    leave_at(signal.SIGTERM)
