"""Events as they go over the wire."""

from engineio.packet import MESSAGE
from engineio.packet import Packet as Frame
from socketio.packet import EVENT, Packet


def encoded(event, data):
    """Return what a client is sent for an event, to be queued for any number of them.

    The server's own emit() encodes for each call, and most events go to everyone.
    """
    return Frame(MESSAGE, Packet(EVENT, data=[event, data]).encode())
