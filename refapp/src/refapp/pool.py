"""A bounded pool of programs: so many run, so many wait, and the next is refused at once.

A program has a process of its own, so that it can be stopped at any moment: no thread can, and
no task of a process pool without the end of its worker.
"""

import contextlib
import json
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque

from .metrics import JOBS

BEAT = 1.0  # seconds between two signs of life; the balancer gives up after 3


def stopping():
    """Return whether the worker is about to stop; gunicorn.py replaces this in a worker."""
    return False


class FullError(Exception):
    """Every slot and every place of the queue is taken."""


class Pool:
    """The slots of this process, and who waits for one, first come first served."""

    def __init__(self, slots, queue, seconds):
        self._slots, self._queue, self._seconds = slots, queue, seconds
        self._running = 0
        self._waiting = deque()
        self._lock = threading.Lock()

    def enter(self, program, task):
        """Return a job for a program and its task, or raise FullError."""
        job = Job(self, [sys.executable, "-I", "-S", str(program)], task, self._seconds)
        with self._lock:
            if self._running < self._slots:
                self._running += 1
                job.admitted.set()
            elif len(self._waiting) < self._queue:
                self._waiting.append(job)
            else:
                JOBS.labels("refused").inc()
                raise FullError
        return job

    def leave(self, job):
        """Give a job's slot to the next one, or its place back."""
        with self._lock:
            if not job.admitted.is_set():
                self._waiting.remove(job)
            elif self._waiting:
                self._waiting.popleft().admitted.set()
            else:
                self._running -= 1


class Job:
    """One program with its task: waits for a slot, runs, and ends with its reader."""

    def __init__(self, pool, command, task, seconds):
        self._pool, self._command, self._task, self._seconds = pool, command, task, seconds
        self.admitted = threading.Event()
        self._process = None
        self._open = True
        self._outcome = "cancelled"

    def close(self):
        """Stop the program, if it still runs, and leave the pool; may be called again."""
        if not self._open:
            return
        self._open = False
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        self._pool.leave(self)
        JOBS.labels(self._outcome).inc()

    def lines(self, limit, client=None):
        """Yield the program's lines, and a sign of life for each BEAT without one.

        Ends with an `end` line: the program's own, or one that says why there is none. Ends
        without one when the socket of the client, if there is one, is closed from its side.
        """
        while not self.admitted.is_set():
            if stopping():
                yield self._end("stopping")
                return
            if gone(client):
                return
            yield event("waiting")
            self.admitted.wait(BEAT)
        self._start()
        deadline = time.monotonic() + self._seconds
        yield event("running")
        found = 0
        for line in self._output(client, deadline):
            yield line
            if line.startswith(b'{"event": "end"'):
                if self._outcome == "cancelled":  # the program's own end
                    self._outcome = "complete"
                return
            found += line.startswith(b'{"event": "match"')
            if found == limit:
                yield self._end("limit")
                return

    def _start(self):
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}
        )
        with contextlib.suppress(BrokenPipeError):  # then its output ends as well
            self._process.stdin.write(json.dumps(self._task).encode() + b"\n")
            self._process.stdin.flush()

    def _output(self, client, deadline):
        """Yield lines until the program, the client or the time ends, then why if need be."""
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if client:
                selector.register(client, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = {key.fileobj for key, _ in selector.select(min(left, BEAT))}
                if client in ready:
                    if gone(client):
                        return
                    selector.unregister(client)  # its next request, which can wait
                if self._process.stdout in ready:
                    more = os.read(self._process.stdout.fileno(), 65536)
                    if not more:
                        yield self._end("failed")
                        return
                    *lines, rest = (rest + more).split(b"\n")
                    yield from (line + b"\n" for line in lines)
                elif not ready:
                    yield event("running")
        yield self._end("time")

    def _end(self, reason):
        self._outcome = reason
        return event("end", reason=reason)


def event(name, **more):
    """Return a line."""
    return json.dumps({"event": name, **more}).encode() + b"\n"


def gone(client):
    """Return whether a client has closed its socket."""
    if client is None:
        return False
    poll = select.poll()  # recv would wait for the socket's timeout, whatever its flags say
    poll.register(client, select.POLLIN)
    try:
        return bool(poll.poll(0)) and client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
