"""Refresh tokens that are replaced, stolen ones that are noticed, and logins that end."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import jwt as pyjwt
import pytest
from conftest import ADMIN_PASSWORD, build
from host import Host
from redis.exceptions import RedisError
from refapp.auth import standing
from refapp.extensions import redis
from refapp.redis import AwayError

KEY = "Idempotency-Key"


def tokens(client, username="admin", password=ADMIN_PASSWORD):
    answer = client.post("/auth/login", json={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    return answer.json


def refresh(client, token, **headers):
    return client.post("/auth/refresh", headers={"Authorization": f"Bearer {token}", **headers})


def works(client, token):
    """Return whether an access token opens a door behind which there is nothing."""
    answer = client.get(f"/uploads/{uuid.uuid4()}", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code in (404, 401), answer.text
    return answer.status_code == 404


def test_a_refresh_token_is_replaced_at_each_use(client, login):
    seen = [login["refresh_token"]]
    for _ in range(3):
        answer = refresh(client, seen[-1])
        assert answer.status_code == 200
        assert works(client, answer.json["access_token"])
        seen.append(answer.json["refresh_token"])
    assert len(set(seen)) == 4


@pytest.mark.parametrize(
    ("owners", "thiefs"),
    [({}, {}), ({KEY: "owner"}, {}), ({KEY: "owner"}, {KEY: "thief"})],
    ids=["no keys", "the owner's key", "two keys"],
)
def test_a_stolen_token_ends_the_login_and_only_that(client, login, owners, thiefs):
    """At once: in the moment after its use a token is most likely to be there twice."""
    other = tokens(client)
    first = login["refresh_token"]
    newer = refresh(client, first, **owners).json
    answer = refresh(client, first, **thiefs)
    assert answer.status_code == 401
    assert "revoked" in answer.json["detail"]
    assert refresh(client, newer["refresh_token"]).status_code == 401
    for token in (login["access_token"], newer["access_token"]):
        assert not works(client, token)
    assert works(client, other["access_token"])
    assert refresh(client, other["refresh_token"]).status_code == 200


def test_a_repeat_in_time_gets_the_same_successor(client, login):
    """A balancer repeats a request on another host, a client after its patience."""
    key = {KEY: uuid.uuid4().hex}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: refresh(client.application.test_client(), login["refresh_token"], **key),
                range(8),
            )
        )
    assert [answer.status_code for answer in answers] == [200] * 8
    [successor] = {answer.json["refresh_token"] for answer in answers}
    for answer in answers:
        assert works(client, answer.json["access_token"])
    later = refresh(client, successor)
    assert later.status_code == 200
    # A repeat that was held up on its way.
    answer = refresh(client, login["refresh_token"], **key)
    assert answer.json["refresh_token"] == later.json["refresh_token"]


def test_each_token_has_a_grace_of_its_own(client, login, sql):
    """That a newer token was replaced just now forgives nothing to an older one."""
    older, newer = {KEY: "older"}, {KEY: "newer"}
    first = refresh(client, login["refresh_token"], **older).json["refresh_token"]
    sql("UPDATE logins SET replaced_at = ARRAY(SELECT unnest(replaced_at) - interval '31 s')")
    assert refresh(client, first, **newer).status_code == 200
    assert refresh(client, first, **newer).status_code == 200
    assert refresh(client, login["refresh_token"], **older).status_code == 401
    assert refresh(client, first, **newer).status_code == 401


def test_a_lost_answer_to_commit_is_no_theft(client, login, app, monkeypatch):
    """The process repeats the transaction by itself, also of a request without a key."""
    database = app.extensions["database"]
    run = database.run

    def run_twice(work, **options):
        run(work, **options)
        return run(work, **options)

    monkeypatch.setattr(database, "run", run_twice)
    assert refresh(client, login["refresh_token"]).status_code == 200


def test_a_login_that_is_not_used_ends(client, login, sql):
    sql(
        "UPDATE logins SET expires_at = now() FROM users"
        " WHERE users.id = user_id AND username = 'admin'"
    )
    ended = "SELECT count(*) FROM logins JOIN users ON users.id = user_id"
    ended += " WHERE username = 'admin' AND expires_at < now()"
    assert refresh(client, login["refresh_token"]).status_code == 401
    tokens(client)
    assert sql(ended) == [(0,)]


def test_a_login_does_not_last_for_ever(client, login, sql):
    sql("UPDATE logins SET created_at = created_at - interval '89 days'")
    answer = refresh(client, login["refresh_token"])
    assert answer.status_code == 200
    [(days,)] = sql(
        "SELECT extract(epoch FROM expires_at - now()) / 86400 FROM logins WHERE id = %s",
        pyjwt.decode(login["access_token"], options={"verify_signature": False})["login"],
    )
    assert 0.9 < days < 1.1


def logout(client, token, **body):
    return client.post("/auth/logout", json=body, headers={"Authorization": f"Bearer {token}"})


def test_logging_out_ends_this_login(client, login):
    other = tokens(client)
    assert logout(client, login["access_token"]).status_code == 204
    assert not works(client, login["access_token"])
    assert refresh(client, login["refresh_token"]).status_code == 401
    assert works(client, other["access_token"])


def test_logging_out_everywhere(client, login):
    other = tokens(client)
    assert logout(client, login["access_token"], everywhere=True).status_code == 204
    for found in (login, other):
        assert not works(client, found["access_token"])
        assert refresh(client, found["refresh_token"]).status_code == 401
    assert works(client, tokens(client)["access_token"])


def test_logging_out_is_heard_by_a_process_that_believed_the_token(monkeypatch, environ, client):
    mine = tokens(client)["access_token"]
    other = build(monkeypatch, environ | {"APP_HOST": "app2"}).test_client()
    assert works(other, mine)
    assert logout(client, mine).status_code == 204
    assert not works(other, mine)


@pytest.fixture
def elsewhere(directory, environ):
    """Asks a process of its own, with its own view of Redis, whether it takes a token."""
    other = Host(directory, environ | {"APP_HOST": "app2"}, 1)
    other.start()

    def takes(token):
        answer = other.get(f"/uploads/{uuid.uuid4()}", headers={"Authorization": f"Bearer {token}"})
        return answer.status_code == 404

    yield takes
    other.stop()


def test_logging_out_is_heard_though_redis_has_just_failed(client, login, elsewhere):
    """One lost packet, and this process does without Redis for a second; others don't."""
    mine = login["access_token"]
    assert elsewhere(mine)

    def fail(_):
        raise RedisError

    with pytest.raises(AwayError):
        redis.insist(fail)
    assert logout(client, mine).status_code == 204
    assert not elsewhere(mine)


def test_logging_out_is_heard_when_redis_is_back(client, login, elsewhere, redis_server):
    """It kept its older answer, which nobody may believe for a minute."""
    mine = login["access_token"]
    assert elsewhere(mine)
    redis_server.stop()
    try:
        assert logout(client, mine).status_code == 204
    finally:
        redis_server.start()
    time.sleep(1)
    assert not elsewhere(mine)
    time.sleep(1.5)  # it may have asked the database, over a connection that was broken
    assert not elsewhere(mine)


def test_without_redis_the_database_says_who_is_logged_out(client, login, redis_server):
    other = tokens(client)
    redis_server.stop()
    try:
        assert works(client, login["access_token"])
        assert logout(client, login["access_token"]).status_code == 204
        assert not works(client, login["access_token"])
        assert works(client, other["access_token"])
    finally:
        redis_server.start()
    time.sleep(1.1)  # the rest after a failure
    assert not works(client, login["access_token"]), "lost with Redis, and asked for again"


def test_an_answer_that_is_known_costs_no_query(client, login, app, monkeypatch):
    works(client, login["access_token"])
    asked = []
    monkeypatch.setattr(standing, "ask", asked.append)
    for _ in range(5):
        assert works(client, login["access_token"])
    assert asked == []


def test_a_slow_answer_does_not_undo_a_logout(client, monkeypatch):
    """One who asked the database before the logout writes to Redis after it."""
    login = tokens(client)
    ask = standing.ask

    def ask_and_be_overtaken(login_id):
        found = ask(login_id)
        monkeypatch.setattr(standing, "ask", ask)
        assert logout(client.application.test_client(), login["access_token"]).status_code == 204
        return found

    monkeypatch.setattr(standing, "ask", ask_and_be_overtaken)
    works(client, login["access_token"])
    assert not works(client, login["access_token"])
