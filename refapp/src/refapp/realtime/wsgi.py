"""The process type `realtime`: the application, with Socket.IO at /socket.io/ before it."""

import signal
import threading

import socketio

from ..extensions import redis
from ..messages import STREAM
from ..streams import Follower
from ..wsgi import app as web
from .server import Realtime

SPREAD = 2.0  # seconds over which a stopping process sends its clients away

realtime = Realtime(web)
realtime.start()
Follower(redis, STREAM, realtime.clients.begin, realtime.clients.deliver).start()
app = socketio.WSGIApp(realtime.server, web)


def leave_at(number):
    """When the server is told to stop, begin by sending the clients to another process.

    gunicorn itself would wait for them to go, and at the end of its grace cut them off.
    """
    stop = signal.getsignal(number)

    def leave(*args):
        threading.Thread(target=realtime.clients.leave, args=[SPREAD], name="leave").start()
        stop(*args)

    signal.signal(number, leave)


if callable(signal.getsignal(signal.SIGTERM)):  # a server has set it before it loaded us
    leave_at(signal.SIGTERM)
