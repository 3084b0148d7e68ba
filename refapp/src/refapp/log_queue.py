"""A queue between those who log and the one thread that writes: a slow reader of the log makes
records be dropped, and counted, but no request wait."""

import contextlib
import copy
import logging
import logging.handlers
import multiprocessing.util
import os
import queue
import threading
import time

ROOM = 10_000  # records
FLUSH = 2.0  # seconds that a stopping process waits for a slow reader


class Descriptor(logging.Handler):
    """Writes each record as one line, with no buffer and no lock that a fork could inherit."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def emit(self, record):
        """Write it all, however long the reader takes."""
        data = (self.format(record) + "\n").encode(errors="backslashreplace")
        while data:
            data = data[os.write(self.number, data) :]


class DroppingQueueHandler(logging.handlers.QueueHandler):
    """Hands records to a writing thread of its own."""

    def __init__(self, target, room=ROOM):
        super().__init__(queue.Queue(room))
        self.target = target
        self.on_drop = lambda: None
        self._begin()
        # Threads don't survive a fork, and the queue may be locked in that very moment.
        os.register_at_fork(after_in_child=self._begin)
        # logging flushes every handler at exit. The processes of this module don't exit so,
        # and forget at their start what they inherited.
        multiprocessing.util.register_after_fork(self, DroppingQueueHandler._flush_at_end)

    def _begin(self):
        self.queue = queue.Queue(self.queue.maxsize)
        self.dropped = self._reported = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._write, args=(self.queue,), name="log", daemon=True).start()

    def _flush_at_end(self):
        multiprocessing.util.Finalize(self, self.flush, exitpriority=-100)

    def prepare(self, record):
        """Return the record with its text as it is now, and without the frames of an exception."""
        record = copy.copy(record)
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        return record

    def enqueue(self, record):
        """Never wait for room."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            with self._counting:
                self.dropped += 1
            self.on_drop()

    def flush(self):
        """Wait until all is written, but not for ever."""
        limit = time.monotonic() + FLUSH
        while self.queue.unfinished_tasks and time.monotonic() < limit:
            time.sleep(0.005)

    def _write(self, records):
        while True:
            record = records.get()
            # Not `handle`: it holds a lock that exit waits for, and the reader may be stuck.
            with contextlib.suppress(Exception):  # nobody is left to be told
                self.target.emit(record)
            records.task_done()
            if self.dropped > self._reported:
                self._report()

    def _report(self):
        dropped, before = self.dropped, self._reported
        self._reported = dropped
        fields = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
        fields |= {"msg": "log records were dropped", "dropped": dropped - before}
        with contextlib.suppress(Exception):
            self.target.emit(logging.makeLogRecord(fields))
