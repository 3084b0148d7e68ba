"""Redis through Sentinel: what it holds can be lost, so an outage degrades and never fails."""

import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel
from werkzeug.exceptions import ServiceUnavailable

# The library's default retries make a failover last 7-14 s for a client; ours fail at once.
SOCKET = {"socket_timeout": 0.5, "socket_connect_timeout": 0.3, "retry": Retry(NoBackoff(), 0)}
REST = 1.0  # seconds without Redis after a failure, so that an outage costs requests no time
COPY = 250  # milliseconds that a replica has to take a write over
ASK_AGAIN = 10.0  # seconds after which the tier may have another number of replicas


class AwayError(Exception):
    """Redis can't be used now."""


class NotReplicatedError(RedisError):
    """The primary took a write, and no replica did: a failover may undo it."""


class Unavailable(ServiceUnavailable):
    """What can't be done without Redis can't be done now; nor can it be said to be lost."""

    description = "Redis is not available now."

    def __init__(self):
        super().__init__(retry_after=1)


class Redis:
    """The current primary, found through the Sentinels."""

    def init_app(self, app):
        """Make the client; connects nowhere."""
        password = app.config["REDIS_PASSWORD"]
        self._sentinel = Sentinel(
            app.config["REDIS_SENTINELS"], sentinel_kwargs={"password": password, **SOCKET}
        )
        self._client = self._sentinel.master_for(
            app.config["REDIS_MASTER"],
            redis_class=redis.Redis,
            password=password,
            decode_responses=True,
            health_check_interval=10,
            **SOCKET,
        )
        self._rest_until = 0.0
        self._replicas, self._replicas_until = 0, 0.0
        self._lock = threading.Lock()
        app.extensions["redis"] = self

    def run(self, command):
        """Return command(client), or raise AwayError when Redis fails, or did a moment ago."""
        if time.monotonic() < self._rest_until:
            raise AwayError
        return self.insist(command)

    def insist(self, command):
        """Do the same for who can wait: ask even if Redis failed a moment ago."""
        try:
            return command(self._client)
        except RedisError as error:
            self._drop(error)
            raise AwayError from error

    def replicated(self, command, insist=False):
        """Return the answer of command(client)'s last command, once its writes can't be lost.

        A tier with replicas refuses writes that none of them would get, but answers before one
        has them. Raises AwayError when no replica confirms within COPY; the writes may be there.
        """

        def write(client):
            wanted = min(self._min_replicas(client), 1)
            pipeline = client.pipeline(transaction=False)
            command(pipeline)
            if wanted:
                pipeline.wait(wanted, COPY)
            answers = pipeline.execute()
            if wanted and answers.pop() < wanted:
                raise NotReplicatedError
            return answers[-1]

        return (self.insist if insist else self.run)(write)

    def _min_replicas(self, client):
        if time.monotonic() > self._replicas_until:
            found = client.config_get("min-replicas-to-write")
            self._replicas = int(found["min-replicas-to-write"])
            self._replicas_until = time.monotonic() + ASK_AGAIN
        return self._replicas

    def check(self):
        """Raise RedisError unless the primary answers; ignores the rest after a failure."""
        self._client.ping()
        self._rest_until = 0.0

    def _drop(self, error):
        with self._lock:
            self._rest_until = time.monotonic() + REST
        # A primary cut off from its replicas keeps its connections, and refuses writes on them
        # for ever: leave, and ask the Sentinels again.
        if isinstance(error, NotReplicatedError) or "NOREPLICAS" in str(error):
            self._client.connection_pool.disconnect(inuse_connections=False)
