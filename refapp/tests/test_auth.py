"""Login, tokens, and keys that change without logging anyone out."""

import base64
import json
import time
from datetime import timedelta

import jwt as pyjwt
import pytest
from conftest import ADMIN_PASSWORD, JWT_KEY, LOGIN, build
from host import Host


def header(token):
    part = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def claims(**changes):
    now = int(time.time())
    return {
        "sub": "6f1e6c1e-3b50-4c3e-9f0a-1d2f7d3b9a00",
        "iss": "refapp",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": "x",
        "type": "access",
        "fresh": False,
        "name": "someone",
        "login": LOGIN,
        **changes,
    }


def try_token(client, token):
    answer = client.get(
        "/uploads/6f1e6c1e-3b50-4c3e-9f0a-1d2f7d3b9a00",
        headers={"Authorization": f"Bearer {token}"},
    )
    return answer.status_code


def test_login_answers_both_tokens(login):
    assert set(login) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert header(login["access_token"])["kid"] == "first"


@pytest.mark.parametrize(
    ("username", "password"), [("admin", "wrong"), ("nobody", "wrong"), ("ADMIN", ADMIN_PASSWORD)]
)
def test_a_wrong_login(client, username, password):
    answer = client.post("/auth/login", json={"username": username, "password": password})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json["detail"] == "Wrong name or password."


def test_refresh_needs_the_refresh_token(client, login):
    def refresh(token):
        return client.post("/auth/refresh", headers={"Authorization": f"Bearer {token}"})

    assert refresh(login["access_token"]).status_code == 401
    answer = refresh(login["refresh_token"])
    assert answer.status_code == 200
    assert try_token(client, answer.json["access_token"]) == 404
    assert try_token(client, login["refresh_token"]) == 401


def test_an_older_key_is_still_accepted(client):
    token = pyjwt.encode(claims(), JWT_KEY[::-1], "HS256", headers={"kid": "old"})
    assert try_token(client, token) == 404


@pytest.mark.parametrize(
    ("key", "algorithm", "headers", "changes"),
    [
        (JWT_KEY[::-1], "HS256", {"kid": "first"}, {}),
        (JWT_KEY, "HS256", {"kid": "unknown"}, {}),
        (JWT_KEY, "HS256", {}, {}),
        (JWT_KEY * 2, "HS512", {"kid": "first"}, {}),
        (None, "none", {"kid": "first"}, {}),
        (JWT_KEY, "HS256", {"kid": "first"}, {"exp": 1}),
        (JWT_KEY, "HS256", {"kid": "first"}, {"iss": "another"}),
        (JWT_KEY, "HS256", {"kid": ["first"]}, {}),
    ],
    ids=[
        "other key",
        "kid unknown",
        "no kid",
        "algorithm",
        "none",
        "expired",
        "issuer",
        "kid type",
    ],
)
def test_a_token_that_is_not_ours(client, key, algorithm, headers, changes):
    if isinstance(headers.get("kid"), list):
        parts = pyjwt.encode(claims(**changes), key, algorithm).split(".")
        raw = json.dumps({"alg": algorithm, "typ": "JWT", **headers}).encode()
        token = ".".join([base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), *parts[1:]])
    else:
        token = pyjwt.encode(claims(**changes), key, algorithm, headers=headers)
    assert try_token(client, token) == 401


MALFORMED = [
    *(("login", value) for value in (None, "", 7, ["x"], {}, "x")),
    *(("sub", value) for value in (None, 7, "admin", [])),
    *(("name", value) for value in (None, 7, [], {}, "\ud800", "\x00")),
    *(("roles", value) for value in (None, 7, "admin", {"admin": 1}, [7], [["admin"]])),
    *(("type", value) for value in (None, 7, [], "another")),
    *((name, value) for name in ("exp", "nbf", "iat") for value in ("x", [], {}, float("inf"))),
    *(("exp", value) for value in (None, "99999999999", 99999999999.5)),
    *(("iss", value) for value in (None, 7, [])),
    *(("jti", value) for value in (7, [])),
]


@pytest.mark.parametrize(("claim", "value"), MALFORMED, ids=str)
def test_a_claim_of_another_type(client, claim, value):
    token = sign(claims(roles=["admin"]) | {claim: value})
    for path in (f"/uploads/{LOGIN}", "/jobs", "/cron"):
        answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, answer.text
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("claim", ["login", "sub", "name", "type", "exp", "iss"])
def test_a_token_that_says_too_little(client, claim):
    """Above all one that names no login: nobody could end it."""
    given = claims()
    assert try_token(client, sign(given)) == 404
    del given[claim]
    assert try_token(client, sign(given)) == (404 if claim == "type" else 401)


@pytest.mark.parametrize(
    "changes",
    [{"login": None}, {"login": "x"}, {"generation": None}, {"generation": "0"}, {"sub": "x"}],
    ids=str,
)
def test_a_refresh_token_with_malformed_claims(client, changes):
    given = claims(type="refresh", generation=0) | changes
    answer = client.post("/auth/refresh", headers={"Authorization": f"Bearer {sign(given)}"})
    assert answer.status_code == 401
    assert answer.json["detail"] == "The token is not valid."


def sign(given):
    """Return a token of whatever claims: PyJWT's encode() refuses some."""
    return pyjwt.PyJWS().encode(
        json.dumps(given).encode(), JWT_KEY, "HS256", headers={"kid": "first", "typ": "JWT"}
    )


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Basic eDp5", "Bearer a.b.c"])
def test_a_header_that_is_no_token(client, value):
    answer = client.post("/sales", json={}, headers={"Authorization": value})
    assert answer.status_code == 401, "and the body was not looked at"


def test_another_process_takes_the_token(monkeypatch, environ, login):
    other = build(monkeypatch, environ | {"APP_HOST": "app2"})
    other.config["JWT_ACCESS_TOKEN_EXPIRES"] = timedelta(seconds=1)
    answer = other.test_client().post(
        "/sales",
        json={"item": "elsewhere", "amount": 1},
        headers={"Authorization": f"Bearer {login['access_token']}"},
    )
    assert answer.status_code == 201


def test_passwords_are_argon2(sql):
    [(stored,)] = sql("SELECT password_hash FROM users WHERE username = 'admin'")
    assert stored.startswith("$argon2id$")


def test_keys_are_rotated_without_logging_anybody_out(environ, directory):
    """Two processes on either side of each step of a rollout take each other's tokens."""
    keys = {name: f"{name}-{JWT_KEY}" for name in ("old", "new")}
    both, swapped = ["old", "new"], ["new", "old"]

    def start(*names):
        value = json.dumps({name: keys[name] for name in names})
        web = Host(directory, environ | {"REFAPP_JWT_KEYS": value}, 1)
        web.start()
        running.append(web)
        return web

    def accepts(web, tokens):
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        answer = web.post("/sales", json={"item": "keys", "amount": 1}, headers=bearer)
        return answer.status_code == 201

    def refreshed(web, tokens):
        bearer = {"Authorization": f"Bearer {tokens['refresh_token']}"}
        answer = web.post("/auth/refresh", headers=bearer)
        assert answer.status_code == 200, answer.text
        return answer.json()

    running = []
    try:
        before, after = start(*both), start(*swapped)
        first = before.login("admin", ADMIN_PASSWORD)
        second = refreshed(after, first)
        assert [header(tokens["access_token"])["kid"] for tokens in (first, second)] == both
        for web in running:
            assert accepts(web, first)
            assert accepts(web, second)
        # Back and forth, as a balancer has it.
        third = refreshed(after, refreshed(before, second))
        # When the old key is taken away, whoever refreshed in the meantime stays.
        last = start("new")
        assert accepts(last, third)
        assert not accepts(last, first)
        assert refreshed(last, third)
    finally:
        for web in running:
            web.stop()
