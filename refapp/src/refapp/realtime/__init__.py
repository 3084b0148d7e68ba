"""The process type `realtime`: pushes messages to browsers over Socket.IO.

Each process follows the stream of messages itself and hands them to its own clients, so that
no process has to know of another: server.py has the protocol, clients.py who gets what.
"""
