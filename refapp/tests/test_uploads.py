"""Bytes go straight to the store, in the announced size and type; the app confirms them."""

import uuid
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import build, make_token
from refapp.extensions import db, store
from refapp.store import StoreAway
from services import send
from sqlalchemy import orm

from refapp import multipart, orphans

FILE = {"filename": "a picture.png", "content_type": "image/png", "size": 5}


@pytest.fixture
def announced(client, bearer):
    answer = client.post("/uploads", json=FILE, headers=bearer)
    assert answer.status_code == 201
    return answer.json


def complete(client, bearer, upload):
    return client.post(f"/uploads/{upload['id']}/complete", headers=bearer)


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


# In parts

LARGE = {"filename": "film.mp4", "content_type": "video/mp4", "size": 33 * 1024**2}


@pytest.fixture
def large(client, bearer):
    answer = client.post("/uploads/multipart", json=LARGE, headers=bearer)
    assert answer.status_code == 201
    return answer.json


def addresses(client, bearer, upload, **query):
    query = {"parts_id": upload["multipart"]["parts_id"], **query}
    answer = client.get(f"/uploads/{upload['id']}/parts", query_string=query, headers=bearer)
    assert answer.status_code == 200
    return answer.json


def assemble(client, bearer, upload):
    body = {"parts_id": upload["multipart"]["parts_id"]}
    return client.post(f"/uploads/{upload['id']}/assemble", json=body, headers=bearer)


@pytest.mark.parametrize("size", [1, 16 * 1024**2, 16 * 1024**2 + 1, multipart.MOST])
def test_a_file_is_cut_into_parts_that_the_store_takes(size):
    sizes = multipart.cut(size)
    assert sum(sizes) == size
    assert len(sizes) <= 1000
    assert all(5 * 1024**2 <= part <= 5 * 1024**3 for part in sizes[:-1])
    assert 0 < sizes[-1] <= sizes[0]


def test_a_large_file_goes_in_parts(client, bearer, large, object_store):
    assert large["multipart"]["count"] == 3
    given = addresses(client, bearer, large)
    assert [part["size"] for part in given["parts"]] == [16 * 1024**2] * 2 + [1024**2]
    for part in given["parts"]:
        signed = parse_qs(urlsplit(part["url"]).query)
        assert signed["X-Amz-SignedHeaders"] == ["content-length;host"]
    assert assemble(client, bearer, large).status_code == 409
    for part in reversed(given["parts"]):
        body = bytes([part["number"]]) * part["size"]
        assert send(part["method"], part["url"], body)[0] == 200
    again = addresses(client, bearer, large, first=3, count=5)
    assert again["arrived"] == [1, 2, 3]
    assert [part["number"] for part in again["parts"]] == [3]

    done = assemble(client, bearer, large)
    assert (done.status_code, done.json["status"]) == (200, "complete")
    assert assemble(client, bearer, large).json["completed_at"] == done.json["completed_at"]
    _, content = send("GET", done.json["get_url"])
    assert len(content) == LARGE["size"]
    assert (content[0], content[-1]) == (1, 3)


def test_a_part_of_another_size_is_missing(client, bearer, large):
    for part in addresses(client, bearer, large)["parts"]:
        send("PUT", part["url"], b"x" * (part["size"] - (part["number"] == 2)))
    answer = assemble(client, bearer, large)
    assert answer.status_code == 409
    assert "[2]" in answer.json["detail"]


def test_an_answer_that_was_lost_can_be_had_again(client, bearer, large, sql):
    """The store put the file together, and the app died before it wrote that down."""
    for part in addresses(client, bearer, large)["parts"]:
        send("PUT", part["url"], b"x" * part["size"])
    assert assemble(client, bearer, large).status_code == 200
    sql("UPDATE uploads SET completed_at = NULL, etag = NULL WHERE id = %s", large["id"])
    assert assemble(client, bearer, large).json["status"] == "complete"


def test_a_repeat_announces_one_large_file(client, bearer, object_store):
    before = len(object_store.parts)
    headers = bearer | {"Idempotency-Key": uuid.uuid4().hex}
    first, again = (client.post("/uploads/multipart", json=LARGE, headers=headers).json
                    for _ in range(2))  # fmt: skip
    assert (again["id"], again["multipart"]) == (first["id"], first["multipart"])
    assert len(object_store.parts) == before + 1


def test_an_upload_can_be_given_up(client, bearer, large, announced, object_store):
    before = len(object_store.parts)
    for upload in (large, announced):
        url = f"/uploads/{upload['id']}"
        assert client.delete(url, headers=bearer).status_code == 204
        assert client.get(url, headers=bearer).status_code == 404
        assert client.delete(url, headers=bearer).status_code == 404
    assert len(object_store.parts) == before - 1


@pytest.mark.parametrize(
    ("query", "field"), [({}, "parts_id"), ({"parts_id": "x", "count": 101}, "count")]
)
def test_a_wrong_request_for_parts_names_its_field(client, bearer, large, query, field):
    answer = client.get(f"/uploads/{large['id']}/parts", query_string=query, headers=bearer)
    assert answer.status_code == 422
    assert list(answer.json["errors"]["query"]) == [field]


def test_an_unknown_collection_has_no_parts(client, bearer, large):
    answer = client.get(f"/uploads/{large['id']}/parts?parts_id=x", headers=bearer)
    assert answer.status_code == 404


# Orphans


def age(sql, upload, hours):
    sql(
        "UPDATE uploads SET created_at = now() - %s * interval '1 hour' WHERE id = %s",
        hours,
        upload["id"],
    )


def sweep():
    with orm.Session(db.engine) as session:
        return orphans.sweep_orphans(session, store)


def test_orphans_are_swept_and_nothing_else(client, bearer, announced, large, object_store, sql):
    send("PUT", announced["upload"]["url"], b"bytes", announced["upload"]["headers"])
    young = client.post("/uploads", json=FILE, headers=bearer).json
    kept = client.post("/uploads", json=FILE, headers=bearer).json
    send("PUT", kept["upload"]["url"], b"bytes", kept["upload"]["headers"])
    complete(client, bearer, kept)
    sweep()
    for upload, hours in ((announced, 26), (large, 26), (young, 24.5), (kept, 26)):
        age(sql, upload, hours)
    parts = len(object_store.parts)
    assert sweep() == 2
    assert sweep() == 0
    assert len(object_store.parts) == parts - 1
    assert urlsplit(announced["upload"]["url"]).path not in object_store.objects
    statuses = [
        client.get(f"/uploads/{upload['id']}", headers=bearer).status_code
        for upload in (announced, large, young, kept)
    ]
    assert statuses == [404, 404, 200, 200]


def test_what_may_be_swept_is_signed_for_no_more(client, bearer, large, sql):
    headers = bearer | {"Idempotency-Key": uuid.uuid4().hex}
    late = client.post("/uploads", json=FILE, headers=headers).json
    for upload in (late, large):
        age(sql, upload, 24.1)
    assert client.post("/uploads", json=FILE, headers=headers).status_code == 410
    assert complete(client, bearer, late).status_code == 410
    assert assemble(client, bearer, large).status_code == 410
    age(sql, late, 26)
    sweep()
    assert client.post("/uploads", json=FILE, headers=headers).status_code == 410


def test_what_clients_may_still_send_is_not_swept(app):
    with pytest.raises(ValueError, match="at least"):
        orphans.sweep_orphans(None, store, timedelta(hours=24))


def test_a_sweep_without_the_store_forgets_nothing(monkeypatch, environ, announced, sql):
    age(sql, announced, 26)
    build(monkeypatch, environ | {"REFAPP_S3_ENDPOINT": "http://127.0.0.1:1"})
    with pytest.raises(StoreAway):
        sweep()
    assert sql("SELECT count(*) FROM uploads WHERE id = %s", announced["id"]) == [(1,)]


def removed(sql, upload, hours):
    sql(
        "UPDATE uploads SET removed_at = now() - %s * interval '1 hour' WHERE id = %s",
        hours,
        upload["id"],
    )


@pytest.mark.parametrize("confirm", [False, True])
def test_what_arrives_after_a_removal_is_swept(client, bearer, object_store, sql, confirm):
    """The address holds for a while: its signature can't be taken back."""
    headers = bearer | {"Idempotency-Key": uuid.uuid4().hex}
    upload = client.post("/uploads", json=FILE, headers=headers).json
    put = upload["upload"]
    path = urlsplit(put["url"]).path
    if confirm:
        send("PUT", put["url"], b"bytes", put["headers"])
        assert complete(client, bearer, upload).status_code == 200
    assert client.delete(f"/uploads/{upload['id']}", headers=bearer).status_code == 204
    assert path not in object_store.objects
    assert send("PUT", put["url"], b"bytes", put["headers"])[0] == 200
    assert complete(client, bearer, upload).status_code == 404
    assert client.post("/uploads", json=FILE, headers=headers).status_code == 410
    listed = client.get("/uploads", headers=bearer).json["uploads"]
    assert upload["id"] not in [each["id"] for each in listed]
    removed(sql, upload, 0.9)
    sweep()
    assert path in object_store.objects, "another one may still arrive"
    removed(sql, upload, 1.1)
    assert sweep() == 1
    assert path not in object_store.objects
    assert sql("SELECT count(*) FROM uploads WHERE id = %s", upload["id"]) == [(0,)]


def test_a_removal_does_not_wait_for_the_store(monkeypatch, environ, client, bearer, announced, sql,
                                               object_store):  # fmt: skip
    put = announced["upload"]
    send("PUT", put["url"], b"bytes", put["headers"])
    alone = build(monkeypatch, environ | {"REFAPP_S3_ENDPOINT": "http://127.0.0.1:1"}).test_client()
    url = f"/uploads/{announced['id']}"
    assert alone.delete(url, headers=bearer).status_code == 204
    assert alone.get(url, headers=bearer).status_code == 404
    build(monkeypatch, environ)
    removed(sql, announced, 1.1)
    assert sweep() == 1
    assert urlsplit(put["url"]).path not in object_store.objects


def test_parts_of_an_announcement_that_failed_are_swept(client, bearer, monkeypatch, sql,
                                                        object_store):  # fmt: skip
    """The process died after the store was told, and nobody has the id of the parts."""
    before = set(object_store.parts)

    def die(*_):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(multipart.idempotency, "once", die)
        assert client.post("/uploads/multipart", json=LARGE, headers=bearer).status_code == 500
    [(path, _)] = set(object_store.parts) - before
    age(sql, {"id": path.rpartition("/")[2]}, 26)
    assert sweep() == 1
    assert set(object_store.parts) == before
