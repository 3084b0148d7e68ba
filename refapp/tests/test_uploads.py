"""Bytes go straight to the store, in the announced size and type; the app confirms them."""

import uuid
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import build, make_token
from sending import FILE, complete
from services import send


def test_a_file_goes_to_the_store_and_comes_back(client, bearer, announced):
    assert announced["status"] == "pending"
    assert "get_url" not in announced
    assert complete(client, bearer, announced).status_code == 409
    put = announced["upload"]
    assert send(put["method"], put["url"], b"bytes", put["headers"]) == (200, b"")

    done = complete(client, bearer, announced)
    assert done.status_code == 200
    assert (done.json["status"], done.json["etag"]) == ("complete", "0123456789abcdef")
    assert complete(client, bearer, announced).json["completed_at"] == done.json["completed_at"]

    shown = client.get(f"/uploads/{announced['id']}", headers=bearer)
    assert shown.headers["Cache-Control"] == "no-store"
    assert send("GET", shown.json["get_url"]) == (200, b"bytes")


def test_complete_files_are_listed_newest_first(client, bearer):
    def send_one(name):
        given = FILE | {"filename": name}
        upload = client.post("/uploads", json=given, headers=bearer).json
        put = upload["upload"]
        assert send("PUT", put["url"], b"bytes", put["headers"])[0] == 200
        assert complete(client, bearer, upload).status_code == 200

    for name in ("one.png", "two.png", "three.png"):
        send_one(name)
    client.post("/uploads", json=FILE | {"filename": "pending.png"}, headers=bearer)
    listed = client.get("/uploads?limit=2", headers=bearer).json["uploads"]
    assert [each["filename"] for each in listed] == ["three.png", "two.png"]
    assert send("GET", listed[0]["get_url"]) == (200, b"bytes")
    other = {"Authorization": f"Bearer {make_token()}"}
    assert client.get("/uploads", headers=other).json == {"uploads": []}
    assert client.get("/uploads?limit=0", headers=bearer).status_code == 422


def test_the_address_is_signed_for_this_type_and_size_and_nothing_a_plain_put_lacks(announced):
    signed = parse_qs(urlsplit(announced["upload"]["url"]).query)
    assert signed["X-Amz-SignedHeaders"] == ["content-length;content-type;host"]
    assert signed["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert not [name for name in signed if "checksum" in name.lower()]


def test_a_file_of_another_size_is_refused(client, bearer, announced, object_store):
    object_store.objects[urlsplit(announced["upload"]["url"]).path] = b"too many bytes"
    answer = complete(client, bearer, announced)
    assert answer.status_code == 409
    assert "14 bytes" in answer.json["detail"]


def test_a_repeat_announces_one_file(client, bearer, sql):
    headers = bearer | {"Idempotency-Key": uuid.uuid4().hex}
    first = client.post("/uploads", json=FILE, headers=headers).json
    again = client.post("/uploads", json=FILE, headers=headers).json
    assert again["id"] == first["id"]
    assert urlsplit(again["upload"]["url"]).path == urlsplit(first["upload"]["url"]).path
    assert sql("SELECT count(*) FROM uploads WHERE id = %s", first["id"]) == [(1,)]
    other = client.post("/uploads", json=FILE | {"size": 6}, headers=headers)
    assert other.status_code == 422


def test_someone_elses_file_does_not_exist(client, announced, sql, bearer):
    sql(
        "WITH other AS (INSERT INTO users (id, username, password_hash)"
        " VALUES (gen_random_uuid(), %s, '') RETURNING id)"
        " UPDATE uploads SET user_id = other.id FROM other WHERE uploads.id = %s",
        uuid.uuid4().hex,
        announced["id"],
    )
    assert client.get(f"/uploads/{announced['id']}", headers=bearer).status_code == 404
    assert complete(client, bearer, announced).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filename", "../../etc/passwd"),
        ("filename", "a\nb"),
        ("content_type", "image"),
        ("size", 0),
        ("size", 5 * 1024**3 + 1),
    ],
)
def test_a_wrong_announcement_names_its_field(client, bearer, field, value):
    answer = client.post("/uploads", json=FILE | {field: value}, headers=bearer)
    assert answer.status_code == 422
    assert list(answer.json["errors"]["json"]) == [field]


def test_without_a_store_only_confirming_fails(monkeypatch, environ, client, bearer, announced):
    alone = build(monkeypatch, environ | {"REFAPP_S3_ENDPOINT": "http://127.0.0.1:1"}).test_client()
    assert alone.post("/uploads", json=FILE, headers=bearer).status_code == 201
    answer = complete(alone, bearer, announced)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert alone.get("/readyz").json["not_ready"] == ["store"]
