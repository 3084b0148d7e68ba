"""Child processes that run jobs: the only way to stop any code in time is to kill its process."""

import asyncio
import multiprocessing

from . import run

# A server forks them: as quick as a fork, and without the threads and locks of the worker.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([run.__name__])

JOBS_A_CHILD = 500  # then a fresh one takes over, in case some job leaks memory


class TimeLimitError(Exception):
    """A job took too long, and was killed."""


class DiedError(Exception):
    """The process of a job ended before the job did; the message says how."""


class Child:
    """A process with a pipe of its own: killing it can't leave a lock held that others need."""

    def __init__(self):
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run.main, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.jobs = 0

    async def perform(self, order):
        """Return how the job ended, and why. Raises TimeLimitError or DiedError."""
        self.jobs += 1
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._pipe.send(order)
            loop.add_reader(self._pipe.fileno(), answered.set)
            try:
                async with asyncio.timeout(order.time_limit):
                    await answered.wait()
            finally:
                loop.remove_reader(self._pipe.fileno())
            return self._pipe.recv()
        except TimeoutError as error:
            raise TimeLimitError(f"stopped after {order.time_limit} s") from error
        except (EOFError, ConnectionError) as error:
            # Its pipe closes a little before its end is known.
            await asyncio.to_thread(self._process.join, 5)
            raise DiedError(f"process ended with {self._process.exitcode}") from error

    def lives(self):
        """Return whether it can be given a job."""
        return self._process.is_alive()

    def retire(self):
        """Let it go once it is idle; it has a second for what it still owes."""
        self._pipe.close()
        self._process.join(1)
        self.kill()

    def kill(self):
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


class Executor:
    """As many children as jobs run at the same time; idle ones wait for the next."""

    def __init__(self):
        self._idle = []

    async def perform(self, order):
        """Run a job in a child. Raises TimeLimitError or DiedError; cancelling kills the job."""
        child = self._take() or await asyncio.to_thread(Child)
        usable = False
        try:
            outcome = await child.perform(order)
            usable = child.jobs < JOBS_A_CHILD
            return outcome
        finally:
            if usable:
                self._idle.append(child)
            else:
                child.kill()

    def _take(self):
        """Return an idle child, if there is one; who was killed meanwhile must cost no attempt."""
        while self._idle:
            child = self._idle.pop()
            if child.lives():
                return child
            child.kill()
        return None

    def close(self):
        """Let the idle children go; there are no others when no job runs."""
        while self._idle:
            self._idle.pop().retire()
