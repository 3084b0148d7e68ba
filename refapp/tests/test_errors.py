"""Errors are problems with an id, name the field that is wrong, and keep internals inside."""

import json
import logging

import pytest

from refapp import logs


@pytest.fixture
def failing(app):
    @app.get("/fail")
    def fail():
        raise ValueError("secret inside")

    return app.test_client()


def test_an_unexpected_error_tells_nothing(failing, caplog):
    answer = failing.get("/fail", headers={"X-Request-ID": "from-balancer-1"})
    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    assert answer.json["request_id"] == "from-balancer-1"
    assert "secret inside" not in answer.text
    assert "trace" not in answer.json
    assert "secret inside" in caplog.text, "the log has what the client is not told"


@pytest.mark.parametrize("path", ["/nothing", "/sales/not-a-uuid", "/static/x/none.css"])
def test_unknown_addresses(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_wrong_method(client):
    answer = client.delete("/livez")
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


def test_request_id_is_made_or_passed_on(client):
    for good in ("abc.1", "Root=1-5f84c3a1", "x" * 128):  # what the balancer passes on, too
        given = client.get("/livez", headers={"X-Request-ID": good}).headers["X-Request-ID"]
        assert given == good
    for bad in ("", "a b", "x" * 129, '"quoted"'):
        given = client.get("/livez", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert given != bad
        assert logs.REQUEST_ID.match(given)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ("{", 400, None),
        pytest.param("[" * 60_000, 400, None, id="too deep"),
        pytest.param('{"amount": ' + "1" * 5000 + "}", 400, None, id="a number too long"),
        ("[]", 422, "_schema"),
        ('{"item": "a", "amount": 1, "extra": 1}', 422, "extra"),
        ('{"item": "a"}', 422, "amount"),
        ('{"item": "a", "amount": "1.5"}', 422, "amount"),
        ('{"item": "a", "amount": true}', 422, "amount"),
        ('{"item": "a", "amount": 0}', 422, "amount"),
        ('{"item": "a", "amount": 1e30}', 422, "amount"),
        ('{"item": "a\\u0000", "amount": 1}', 422, "item"),
        ('{"item": "\\ud800", "amount": 1}', 422, "item"),
        ('{"item": "' + "a" * 65 + '", "amount": 1}', 422, "item"),
        ('{"item": "' + "a" * 70_000 + '", "amount": 1}', 413, None),
    ],
)
def test_a_wrong_body_names_its_field(client, bearer, body, status, field):
    answer = client.post("/sales", data=body, content_type="application/json", headers=bearer)
    assert answer.status_code == status
    assert answer.json["title"]
    if field:
        assert field in answer.json["errors"]["json"]


def test_a_body_that_is_not_json(client, bearer):
    answer = client.post("/sales", data="a=1", content_type="text/plain", headers=bearer)
    assert answer.status_code in (415, 422)


@pytest.mark.parametrize("key", ["", "two words", "ü", "x" * 256])
def test_a_wrong_idempotency_key(client, bearer, key):
    headers = bearer | {"Idempotency-Key": key}
    answer = client.post("/sales", json={"item": "a", "amount": 1}, headers=headers)
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json["errors"]["headers"]


def test_a_request_is_one_line_of_json_without_secrets(client, login, bearer):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logs.access.addHandler(handler)
    try:
        client.get(
            f"/sales?idempotency_key=k&token={login['access_token']}",
            headers=bearer | {"X-Request-ID": "r-1"},
        )
        client.post("/sales", json={"item": "log", "amount": 1}, headers=bearer)
    finally:
        logs.access.removeHandler(handler)
    lines = [logs.JSONFormatter().format(record) for record in records]
    assert [json.loads(line)["path"] for line in lines] == ["/sales", "/sales"]
    first, second = map(json.loads, lines)
    assert first["request_id"] == "r-1"
    assert first["duration_ms"] > 0
    assert second["user"] == "admin"
    for line in lines:
        assert "\n" not in line
        assert login["access_token"] not in line
