"""Files that tests announce, whole or in parts."""

import pytest

FILE = {"filename": "a picture.png", "content_type": "image/png", "size": 5}
LARGE = {"filename": "film.mp4", "content_type": "video/mp4", "size": 33 * 1024**2}


@pytest.fixture
def announced(client, bearer):
    answer = client.post("/uploads", json=FILE, headers=bearer)
    assert answer.status_code == 201
    return answer.json


def complete(client, bearer, upload):
    return client.post(f"/uploads/{upload['id']}/complete", headers=bearer)


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
