"""PostgreSQL, Redis with Sentinel and two small servers: real processes on free ports."""

import http.client
import http.server
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import psycopg

PASSWORD = "service-password"


def free_port():
    """Return a port that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def account():
    """Return who runs the services: PostgreSQL refuses root, and its package brings a user."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def own(path):
    """Give a directory to the services' account."""
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


def wait_for(port, seconds=60):
    """Return once something accepts connections on a port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def send(method, url, body=None, headers=None):
    """Return (status, body) of a request made with what is given and nothing else, like curl."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    connection.request(method, f"{parts.path}?{parts.query}", body, headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


class Process:
    """A server process that tests may stop, freeze and start again."""

    command = ()
    stop_signal = signal.SIGTERM

    def __init__(self, directory):
        self.directory = own(Path(directory))
        self.port = free_port()

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, stdout=log, stderr=log, **account()
            )
        wait_for(self.port)

    def stop(self):
        self.process.send_signal(self.stop_signal)
        self.process.wait(20)

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


class Postgres(Process):
    """A cluster with one role and one database."""

    stop_signal = signal.SIGINT  # fast shutdown

    def __init__(self, directory):
        super().__init__(directory)
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        binaries = max(versions, key=lambda path: int(path.parent.name))
        data = self.directory / "data"
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "refapp", "-A", "trust", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd=self.directory,
            **account(),
        )
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "fsync": "off",
            "max_connections": 60,
            # Counts statements, for tests that must know how many there were.
            "shared_preload_libraries": "pg_stat_statements",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.command = [binaries / "postgres", "-D", data, *options]

    def start(self):
        super().start()
        # It accepts connections before it accepts work.
        deadline = time.monotonic() + 60
        while True:
            try:
                where = f"host=127.0.0.1 port={self.port} user=refapp dbname=postgres"
                psycopg.connect(where, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def freeze(self):
        """Stop all of its processes, as a host that hangs does: its kernel takes what comes."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self):
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number):
        pid = self.process.pid
        os.kill(pid, number)  # first, so that it makes no more children
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), number)

    def url(self, database):
        return f"postgresql+psycopg://refapp:unused@/{database}?host=127.0.0.1:{self.port}"


class Redis(Process):
    """A primary and its Sentinel."""

    def __init__(self, directory):
        super().__init__(directory)
        self.sentinel = Sentinel(self.directory / "sentinel", self.port)
        self.command = [
            shutil.which("redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--requirepass", PASSWORD, "--appendonly", "yes"),
        ]

    def start(self):
        super().start()
        if not hasattr(self.sentinel, "process"):
            self.sentinel.start()


class Sentinel(Process):
    """Watches the primary, and says where it is."""

    def __init__(self, directory, primary):
        super().__init__(directory)
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {PASSWORD}\n"
            f"sentinel monitor evenkeel 127.0.0.1 {primary} 1\n"
            f"sentinel auth-pass evenkeel {PASSWORD}\n"
            # Longer than a test keeps the primary away: there is nobody to fail over to.
            "sentinel down-after-milliseconds evenkeel 60000\n"
        )
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(config, user.pw_uid, user.pw_gid)
        self.command = [shutil.which("redis-server"), str(config), "--sentinel"]


class Server:
    """A small HTTP server in a thread."""

    def __init__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name):
                if name.startswith("do_"):
                    return lambda: outer.answer(self)
                raise AttributeError(name)

            def log_message(self, *args):
                """Say nothing."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


class Cache(Server):
    """An edge cache that remembers what it was told to purge."""

    def __init__(self):
        self.purged = []
        self.status = 204
        self.delay = 0
        super().__init__()

    def answer(self, request):
        time.sleep(self.delay)
        if self.status < 300:
            self.purged.append((request.command, request.path))
        request.send_response(self.status)
        request.send_header("Content-Length", "0")
        request.end_headers()


class ObjectStore(Server):
    """Keeps what is PUT to it, in parts too. The fleet tests see the real one check signatures."""

    def __init__(self):
        self.objects = {}
        self.parts = {}  # (path, upload id) -> {number: bytes}
        self.requests = []
        super().__init__()

    def answer(self, request):
        path, query = urlsplit(request.path)[2:4]
        self.requests.append((request.command, request.path, dict(request.headers)))
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        query = dict(parse_qsl(query, keep_blank_values=True))
        if "uploads" in query or "uploadId" in query:
            status, answer = self._multipart(request.command, path, query, body)
        else:
            status, answer = self._object(request.command, path, body)
        request.send_response(status)
        request.send_header("ETag", '"0123456789abcdef"')
        size = len(self.objects.get(path, b"")) if request.command == "HEAD" else len(answer)
        request.send_header("Content-Length", str(size))
        request.end_headers()
        request.wfile.write(answer)

    def _object(self, command, path, body):
        if command == "PUT":
            self.objects[path] = body
        elif command == "DELETE":
            return 404 if self.objects.pop(path, None) is None else 204, b""
        elif path.count("/") > 1 and path not in self.objects:
            return 404, b""
        return 200, self.objects[path] if command == "GET" else b""

    def _multipart(self, command, path, query, body):
        if command == "GET" and "uploads" in query:
            return 200, self._xml(
                "ListMultipartUploadsResult",
                [
                    f"<Upload><Key>{key.split('/', 2)[2]}</Key><UploadId>{id_}</UploadId></Upload>"
                    for key, id_ in self.parts
                    if key.split("/", 2)[2].startswith(query["prefix"])
                ],
            )
        if command == "POST" and "uploads" in query:
            self.parts[path, id_ := f"id-{len(self.requests)}"] = {}
            return 200, self._xml("R", [f"<UploadId>{id_}</UploadId>"])
        collected = self.parts.get((path, query["uploadId"]))
        if collected is None:
            return 404, b""
        if command == "PUT":
            collected[int(query["partNumber"])] = body
        elif command == "GET":
            return 200, self._xml(
                "ListPartsResult",
                [
                    f"<Part><PartNumber>{number}</PartNumber><ETag>e{number}</ETag>"
                    f"<Size>{len(part)}</Size></Part>"
                    for number, part in sorted(collected.items())
                ],
            )
        else:
            del self.parts[path, query["uploadId"]]
            if command == "POST":
                self.objects[path] = b"".join(part for _, part in sorted(collected.items()))
        return 200, self._xml("R", []) if command == "POST" else b""

    @staticmethod
    def _xml(name, items):
        return f"<{name}>{''.join(items)}</{name}>".encode()
