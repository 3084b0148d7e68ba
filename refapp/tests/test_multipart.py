"""A large file goes to the store in parts."""

import uuid
from urllib.parse import parse_qs, urlsplit

import pytest
from sending import LARGE, addresses, assemble
from services import send

from refapp import multipart


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
