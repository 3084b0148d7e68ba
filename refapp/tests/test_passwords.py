"""Passwords, how often they may be wrong, and users and their roles."""

import time
import uuid

import argon2
import pytest
from conftest import build
from refapp.auth import attempts, passwords
from test_logins import refresh, tokens

from refapp import auth

# Passwords


def make_user(sql, name, hasher=auth.hasher):
    sql(
        "INSERT INTO users (id, username, password_hash) VALUES (gen_random_uuid(), %s, %s)",
        name,
        hasher.hash("its own password"),
    )
    return name


def test_hashes_follow_the_parameters(client, sql):
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    name = make_user(sql, uuid.uuid4().hex, weak)
    assert client.post(
        "/auth/login", json={"username": name, "password": "wrong"}
    ).status_code == 401  # fmt: skip
    stored = "SELECT password_hash FROM users WHERE username = %s"
    assert "m=1024" in sql(stored, name)[0][0]
    tokens(client, name, "its own password")
    assert "m=19456,t=2,p=1" in sql(stored, name)[0][0]
    tokens(client, name, "its own password")


def test_a_name_that_nobody_has_costs_the_same_work(app):
    """The processor's time of this thread, where argon2 works; the least of some is its work."""

    def work(username):
        began = time.thread_time()
        with app.test_request_context():
            assert passwords.find(username, "wrong") is None
        return time.thread_time() - began

    pairs = [(work("admin"), work("nobody-of-this-name")) for _ in range(12)]
    known, unknown = map(min, zip(*pairs, strict=True))
    assert 0.5 < unknown / known < 2, "without the work it is a twentieth"


# Attempts


def wrong(client, name, address="192.0.2.1"):
    return client.post(
        "/auth/login",
        json={"username": name, "password": "wrong"},
        headers={"X-Forwarded-For": address},
    )


@pytest.fixture
def name():
    return f"guessed-{uuid.uuid4().hex}"


@pytest.fixture
def address():
    """An address that no other test fails from."""
    value = uuid.uuid4().int
    return f"198.18.{value % 256}.{value // 256 % 256}"


def test_guessing_is_bounded_across_processes(monkeypatch, environ, client, sql, name, address):
    make_user(sql, name)
    other = build(monkeypatch, environ | {"APP_HOST": "app2"}).test_client()
    for n in range(attempts.FOR_NAME_AND_ADDRESS):
        assert wrong(other if n % 2 else client, name, address).status_code == 401
    for one in (client, other):
        answer = wrong(one, name, address)
        assert answer.status_code == 429
        assert answer.content_type == "application/problem+json"
        assert 1 <= int(answer.headers["Retry-After"]) <= attempts.WINDOW
    right = {"username": name, "password": "its own password"}
    refused = client.post("/auth/login", json=right, headers={"X-Forwarded-For": address})
    assert refused.status_code == 429, "a guesser does not learn that it is right"
    elsewhere = client.post("/auth/login", json=right, headers={"X-Forwarded-For": "198.19.0.1"})
    assert elsewhere.status_code == 200, "the owner is not shut out"


def test_a_success_forgives(client, sql, name, address):
    make_user(sql, name)
    for _ in range(3):
        for _ in range(attempts.FOR_NAME_AND_ADDRESS - 1):
            assert wrong(client, name, address).status_code == 401
        right = {"username": name, "password": "its own password"}
        answer = client.post("/auth/login", json=right, headers={"X-Forwarded-For": address})
        assert answer.status_code == 200


def test_many_names_from_one_address(client, monkeypatch, address):
    monkeypatch.setattr(attempts, "FOR_ADDRESS", 5)
    seen = [wrong(client, uuid.uuid4().hex, address).status_code for _ in range(6)]
    assert seen == [401] * 5 + [429]


def test_one_name_from_many_addresses(client, monkeypatch, name):
    monkeypatch.setattr(attempts, "FOR_NAME", 5)
    seen = [wrong(client, name, f"203.0.113.{n}").status_code for n in range(6)]
    assert seen == [401] * 5 + [429]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::3", "2001:db8:1:2:ffff::4", True),
        ("2001:db8:1:2::3", "2001:db8:1:3::3", False),
    ],
)
def test_what_counts_as_one_address(one, other, same):
    assert (attempts.network(one) == attempts.network(other)) is same


def test_without_redis_people_log_in(client, redis_server):
    redis_server.stop()
    try:
        assert tokens(client)
    finally:
        redis_server.start()


# Users and roles


@pytest.fixture
def new_user(client, bearer):
    def make(**changes):
        body = {"username": uuid.uuid4().hex, "password": "a long enough one", **changes}
        return client.post("/users", json=body, headers=bearer)

    return make


def test_an_admin_makes_users_who_are_none(client, new_user):
    made = new_user()
    assert made.status_code == 201
    assert "password" not in made.text
    name = made.json["username"]
    assert new_user(username=name).status_code == 409
    token = tokens(client, name, "a long enough one")["access_token"]
    answer = client.post(
        "/users",
        json={"username": "x", "password": "a long enough one"},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert (answer.status_code, answer.content_type) == (403, "application/problem+json")


def test_a_refresh_brings_the_roles_of_today(client, new_user, sql):
    name = new_user(roles=["clerk"]).json["username"]
    found = tokens(client, name, "a long enough one")
    sql("UPDATE users SET roles = '{admin}' WHERE username = %s", name)
    newer = refresh(client, found["refresh_token"]).json["access_token"]

    def make(token):
        body = {"username": uuid.uuid4().hex, "password": "a long enough one"}
        header = {"Authorization": f"Bearer {token}"}
        return client.post("/users", json=body, headers=header).status_code

    assert (make(found["access_token"]), make(newer)) == (403, 201)
