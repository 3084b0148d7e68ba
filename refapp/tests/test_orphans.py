"""Files that nobody confirmed, or that were removed, are swept; no other is."""

import uuid
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from conftest import build
from refapp.extensions import db, store
from refapp.store import StoreAway
from sending import FILE, LARGE, assemble, complete
from services import send
from sqlalchemy import orm

from refapp import multipart, orphans


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
