"""Fixtures: services once a session, an application and an empty cache for each test."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import jwt as pyjwt
import psycopg
import pytest
import redis
import services
import sqlalchemy as sa
from web import ROOT, Web

from refapp import logs, settings

pytest_plugins = ["realtime_hosts", "selling", "sending", "workers"]

ADMIN_PASSWORD = "admin-password-of-tests"
JWT_KEY = "0123456789abcdef0123456789abcdef"
LOGIN = str(uuid.uuid4())  # of the tokens that tests make: it stands, and no test may end it


@pytest.hookimpl(wrapper=True, trylast=True)
def write_log(item):
    """What each phase of a test logs is written while pytest still listens to it."""
    try:
        return (yield)
    finally:
        if logs.queued:
            logs.queued.flush()


pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = write_log


@pytest.fixture(scope="session")
def directory():
    # Not pytest's: services run as another user, who can't enter root's directories.
    path = Path(tempfile.mkdtemp(prefix="refapp-tests-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres(directory):
    server = services.Postgres(directory / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(directory):
    server = services.Redis(directory / "redis")
    server.start()
    yield server
    server.sentinel.stop()
    server.stop()


@pytest.fixture(scope="session")
def object_store():
    server = services.ObjectStore()
    yield server
    server.close()


@pytest.fixture
def cache():
    server = services.Cache()
    yield server
    server.close()


def make_environ(**changes):
    """Return variables of a process; nothing listens on what they name unless changed."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "src"),
        "APP_ENV": "production",
        "APP_HOST": "app1",
        "APP_RELEASE": "0123456789ab",
        "REFAPP_SECRET_KEY": "secret-key-of-tests",
        "REFAPP_JWT_KEYS": f'{{"first": "{JWT_KEY}", "old": "{JWT_KEY[::-1]}"}}',
        "REFAPP_DATABASE_URL": "postgresql+psycopg://refapp:hidden@/refapp?host=127.0.0.1:1",
        "REFAPP_REDIS_SENTINELS": "127.0.0.1:1",
        "REFAPP_REDIS_PASSWORD": services.PASSWORD,
        "REFAPP_S3_ENDPOINT": "http://127.0.0.1:1",
        "REFAPP_S3_PUBLIC_ENDPOINT": "https://files.example.com",
        "REFAPP_S3_ACCESS_KEY": "refapp:app",
        "REFAPP_S3_SECRET_KEY": "s3-secret-of-tests",
        "REFAPP_ADMIN_PASSWORD": ADMIN_PASSWORD,
        **changes,
    }


def make_token(name="someone", seconds=300, **changes):
    """Return an access token as the application makes them."""
    now = int(time.time())
    claims = {
        "sub": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        "name": name,
        "roles": [],
        "login": LOGIN,
        "type": "access",
        "fresh": False,
        "jti": uuid.uuid4().hex,
        "iss": "refapp",
        "iat": now - 10,
        "nbf": now - 10,
        "exp": now + seconds,
    }
    return pyjwt.encode(claims | changes, JWT_KEY, "HS256", headers={"kid": "first"})


def forget_settings(redis_server):
    """Take runtime settings back to what is declared: Redis is the same for all tests."""
    with redis.Redis(port=redis_server.port, password=services.PASSWORD) as client:
        client.delete(settings.KEY, settings.CHANGES)


def migrate(environ, **options):
    """Run `python -m refapp.migrate` the way a deploy does."""
    return subprocess.Popen(
        [sys.executable, "-m", "refapp.migrate"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def make_database(postgres):
    """Return the URL of a new, empty database."""
    name = f"test_{uuid.uuid4().hex}"
    where = f"postgresql://refapp@127.0.0.1:{postgres.port}/postgres"
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.url(name)


@pytest.fixture(scope="session")
def database(postgres):
    """A migrated and seeded database, one for all tests: they use items of their own."""
    url = make_database(postgres)
    process = migrate(make_environ(REFAPP_DATABASE_URL=url))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    with connect(url) as connection:
        connection.execute(
            "WITH one AS (INSERT INTO users (id, username, password_hash)"
            " VALUES (gen_random_uuid(), 'owner of made tokens', '') RETURNING id)"
            " INSERT INTO logins (id, user_id, issued_at, expires_at, created_at)"
            " SELECT %s, id, now(), now() + interval '1 day', now() FROM one",
            [LOGIN],
        )
    return url


def connect(url):
    """Return a connection beside the application's."""
    parsed = sa.make_url(url)
    host, port = parsed.query["host"].split(":")
    where = {"host": host, "port": port, "user": "refapp", "dbname": parsed.database}
    return psycopg.connect(**where, autocommit=True)


@pytest.fixture
def sql(database):
    """Run SQL beside the application; returns the rows."""

    def run(text, *values):
        # A connection each: some tests stop the server between two of them.
        with connect(database) as connection:
            cursor = connection.execute(text, values)
            return cursor.fetchall() if cursor.description else None

    return run


@pytest.fixture(scope="session")
def session_environ(database, redis_server, object_store):
    """Variables of a process whose every service is there."""
    return make_environ(
        REFAPP_DATABASE_URL=database,
        REFAPP_REDIS_SENTINELS=f"127.0.0.1:{redis_server.sentinel.port}",
        REFAPP_S3_ENDPOINT=object_store.url,
        REFAPP_S3_PUBLIC_ENDPOINT=object_store.url,
    )


@pytest.fixture
def environ(session_environ, cache):
    """The same, with a cache of the edge."""
    return session_environ | {"REFAPP_PURGE_URLS": cache.url}


def build(monkeypatch, environ):
    """Return an application of this process with these variables, and only these."""
    for name in os.environ:
        if name.startswith(("REFAPP_", "APP_")):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    from refapp.factory import create_app

    app = create_app()
    app.undocumented = []
    documented = app.extensions["flask-smorest"]["apis"][""]["ext_obj"].spec.to_dict()["paths"]

    @app.after_request
    def compare_with_the_document(response):
        from flask import request

        if request.url_rule:
            path = re.sub(r"<(?:[^<>]+:)?(\w+)>", r"{\1}", request.url_rule.rule)
            operation = documented.get(path, {}).get(request.method.lower())
            if operation and str(response.status_code) not in operation["responses"]:
                app.undocumented.append((request.method, path, response.status_code))
        return response

    return app


@pytest.fixture
def app(monkeypatch, environ):
    """The application with its services; fails a test that sees an undocumented status."""
    app = build(monkeypatch, environ)
    yield app
    assert app.undocumented == []
    app.extensions["database"].engine.dispose()


@pytest.fixture
def lonely(monkeypatch):
    """The application while nothing that it needs is there."""
    app = build(monkeypatch, make_environ())
    yield app
    assert app.undocumented == []


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def login(client):
    """Tokens of the admin."""
    answer = client.post("/auth/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.status_code == 200
    return answer.json


@pytest.fixture
def bearer(login):
    return {"Authorization": f"Bearer {login['access_token']}"}


@pytest.fixture
def item():
    """An item that no other test sells."""
    return f"item-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_listener():
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))


@pytest.fixture
def listener(make_listener):
    return make_listener()


@pytest.fixture
def start(environ, listener, directory):
    """Start a gunicorn of a release on the listener, or on another one."""
    started = []
    here = Path(tempfile.mkdtemp(dir=directory))  # short: sockets lie in it

    def start(release, on=listener, changes=None, **options):
        started.append(Web(environ | (changes or {}), on, here, release, **options))
        return started[-1]

    yield start
    running = [web for web in started if web.process.poll() is None]
    for web in running:
        web.process.terminate()
    for web in started:
        if web in running:
            web.stop()
        web.log.close()
