"""Settings: REFAPP_* variables for what differs between fleets, APP_* for what the unit knows."""

import json
import os
import secrets
import socket

# Without these nothing starts, in development either: a fallback secret is a published one.
REQUIRED = (
    "SECRET_KEY",
    "JWT_KEYS",
    "DATABASE_URL",
    "REDIS_SENTINELS",
    "REDIS_PASSWORD",
    "S3_ENDPOINT",
    "S3_PUBLIC_ENDPOINT",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
)

OPTIONAL = {
    "REDIS_MASTER": "evenkeel",
    "S3_BUCKET": "refapp-uploads",
    "S3_REGION": "us-east-1",
    "PURGE_URLS": "",
    "TOTALS": "cached",
}

# Whole numbers: (what they are unless set, the least, the most).
NUMBERS = {
    # Connections a worker keeps: workers x hosts x 2 (a deploy runs two releases) x this
    # must stay below PostgreSQL's max_connections.
    "DATABASE_POOL": (4, 1, 100),
    # Seconds that a stopping worker gives its jobs to end; the unit gives it 20 in all.
    "JOB_GRACE": (10, 0, 15),
    # Computations at once, 0 for one a core; how many wait; seconds that each may take, less
    # than gunicorn's graceful_timeout so that a stop can wait for them; per cent of a core that
    # each may use.
    "CPU_SLOTS": (0, 0, 24),
    "CPU_QUEUE": (8, 0, 24),
    "CPU_SECONDS": (20, 1, 20),
    "CPU_SHARE": (100, 1, 100),
}

# How a total of sales is found: see totals.py.
WAYS = ("plain", "coalesced", "cached")

DEFAULTS = {
    "MAX_CONTENT_LENGTH": 64 * 1024,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
    "UPLOAD_MAX_BYTES": 5 * 1024**3,
    "UPLOAD_URL_SECONDS": 900,
}

# What APP_ENV=development turns on. Anything but "development" is production, so that a
# misspelt or missing APP_ENV is never the unsafe one.
DEVELOPMENT = {
    "DEBUG": True,
    "TEMPLATES_AUTO_RELOAD": True,
    "SESSION_COOKIE_NAME": "session",
    "SESSION_COOKIE_SECURE": False,
    "ERRORS_WITH_TRACE": True,
    "STATIC_IMMUTABLE": False,
    "CRASHABLE": True,
}
PRODUCTION = {
    "DEBUG": False,
    "TEMPLATES_AUTO_RELOAD": False,
    # Browsers take this name over TLS only, and from no other host of the domain.
    "SESSION_COOKIE_NAME": "__Host-session",
    "SESSION_COOKIE_SECURE": True,
    "ERRORS_WITH_TRACE": False,
    "STATIC_IMMUTABLE": True,
    "CRASHABLE": False,
}


def load(environ=os.environ, overrides=None):
    """Return the settings of the process, or raise RuntimeError naming what is missing."""
    overrides = overrides or {}
    config = dict(DEFAULTS)
    config["APP_ENV"] = environ.get("APP_ENV", "production")
    config.update(DEVELOPMENT if config["APP_ENV"] == "development" else PRODUCTION)
    config["HOST"] = environ.get("APP_HOST") or socket.gethostname()
    config["RELEASE"] = environ.get("APP_RELEASE") or "development"
    config["PROCESS"] = environ.get("APP_PROCESS") or "web"
    config["WORKERS"] = int(environ.get("WEB_CONCURRENCY") or 1)
    # Told apart in logs and in whoami even when two processes get the same pid number.
    config["INSTANCE"] = secrets.token_hex(4)

    for name in REQUIRED:
        config[name] = overrides.get(name) or environ.get(f"REFAPP_{name}")
        if not config[name]:
            raise RuntimeError(f"REFAPP_{name} is not set")
    for name, default in OPTIONAL.items():
        config[name] = environ.get(f"REFAPP_{name}") or default
    for name, (default, least, most) in NUMBERS.items():
        given = environ.get(f"REFAPP_{name}") or default
        config[name] = _number(name, overrides.get(name, given), least, most)
    config.update({k: v for k, v in overrides.items() if k not in NUMBERS})

    config["JWT_KEYS"] = _jwt_keys(config["JWT_KEYS"])
    config["REDIS_SENTINELS"] = _addresses(config["REDIS_SENTINELS"])
    config["PURGE_URLS"] = [url.strip() for url in config["PURGE_URLS"].split(",") if url.strip()]
    if config["TOTALS"] not in WAYS:
        raise RuntimeError(f"REFAPP_TOTALS must be one of: {', '.join(WAYS)}")
    return config


def _number(name, text, least, most):
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise RuntimeError(f"REFAPP_{name} must be a whole number from {least} to {most}")
    return number


def _jwt_keys(text):
    try:
        keys = json.loads(text)
    except ValueError:
        keys = None
    if not isinstance(keys, dict) or not keys:
        raise RuntimeError('REFAPP_JWT_KEYS must be JSON like {"kid": "secret"}')
    for kid, key in keys.items():
        # RFC 7518, 3.2: HS256 keys have at least 256 bits.
        if not isinstance(key, str) or len(key) < 32:
            raise RuntimeError(f"REFAPP_JWT_KEYS: the key {kid!r} is shorter than 32 characters")
    return keys


def _addresses(text):
    addresses = []
    for part in text.split(","):
        host, colon, port = part.strip().rpartition(":")
        if not (host and colon and port.isdigit()):
            raise RuntimeError("REFAPP_REDIS_SENTINELS must be like host:26379,host:26379")
        addresses.append((host, int(port)))
    return addresses
