"""What APP_ENV=production is worth: `python bench/production.py [seconds]`, from refapp/.

The same pages are asked for by as many clients, of one worker each time: of gunicorn in
production, of gunicorn in development, and of Flask's own development server. It needs no
database: neither page asks for one.
"""

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = 8
PATHS = ("/", "/whoami")  # a template, and JSON
GUNICORN = ["-m", "gunicorn", "--config", "python:refapp.gunicorn", "--bind", "127.0.0.1:{port}"]
SERVERS = {
    "gunicorn, production": ("production", [*GUNICORN, "refapp.wsgi:app"]),
    "gunicorn, development": ("development", [*GUNICORN, "refapp.wsgi:app"]),
    "flask run --debug": (
        "development",
        ["-m", "flask", "--app", "refapp.wsgi", "run", "--debug", "--port", "{port}"],
    ),
}


def environment(env):
    """Return variables of a process whose services are not there."""
    return os.environ | {
        "APP_ENV": env,
        "PYTHONPATH": str(ROOT / "src"),
        "WEB_CONCURRENCY": "1",
        "REFAPP_SECRET_KEY": secrets.token_hex(),
        "REFAPP_JWT_KEYS": f'{{"first": "{secrets.token_hex()}"}}',
        "REFAPP_DATABASE_URL": "postgresql+psycopg://nobody@/none?host=127.0.0.1:1",
        "REFAPP_REDIS_SENTINELS": "127.0.0.1:1",
        "REFAPP_REDIS_PASSWORD": "none",
        "REFAPP_S3_ENDPOINT": "http://127.0.0.1:1",
        "REFAPP_S3_PUBLIC_ENDPOINT": "http://127.0.0.1:1",
        "REFAPP_S3_ACCESS_KEY": "none",
        "REFAPP_S3_SECRET_KEY": "none",
    }


@contextlib.contextmanager
def server(env, arguments):
    """Run a server and give its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *(word.format(port=port) for word in arguments)],
        cwd=ROOT,
        env=environment(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the development server has a child that reloads it
    )
    try:
        limit = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if time.monotonic() > limit or process.poll() is not None:
                raise RuntimeError(f"{arguments} did not start")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def processor_seconds(group):
    """Return what the processes of a group have used: unlike time, no neighbour adds to it."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(port, group, path, seconds):
    """Return requests a second, and a second of the processor; all were answered with 200."""
    used = processor_seconds(group)
    counts, end = [0] * CLIENTS, time.monotonic() + seconds

    def ask(n):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while time.monotonic() < end:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status}")
            counts[n] += 1

    threads = [threading.Thread(target=ask, args=[n]) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = processor_seconds(group) - used
    return sum(counts) / seconds, sum(counts) / used


def main(seconds=10.0):
    """Print a table of requests a second, and a second of the processor."""
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':24}" + "".join(f"{path:>24}" for path in PATHS))
    for name, (env, arguments) in SERVERS.items():
        with server(env, arguments) as (port, group):
            for path in PATHS:
                measure(port, group, path, 1)  # templates are compiled, modules imported
            rates = [measure(port, group, path, seconds) for path in PATHS]
        print(f"{name:24}" + "".join(f"{a:9.0f}/s {b:6.0f}/cpu s" for a, b in rates))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
