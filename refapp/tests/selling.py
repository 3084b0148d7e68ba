"""Sales that tests record, and what they look at afterwards."""

import time

import pytest


@pytest.fixture
def sell(app, bearer):
    """POST a sale, from any thread."""

    def post(item, amount=1, key=None):
        headers = bearer | ({"Idempotency-Key": key} if key else {})
        body = {"item": item, "amount": amount}
        return app.test_client().post("/sales", json=body, headers=headers)

    return post


def total(client, item):
    answer = client.get(f"/sales/total?item={item}")
    assert answer.status_code == 200
    return answer.json["count"], answer.json["total"]


def sell_unnoticed(sql, item, amount=5):
    """Record a sale behind the application's back."""
    sql(
        "INSERT INTO sales (id, item, amount, user_id)"
        " SELECT gen_random_uuid(), %s, %s, id FROM users WHERE username = 'admin'",
        item,
        amount,
    )


def eventually(check, seconds=3):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)
