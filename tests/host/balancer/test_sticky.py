"""A balancer with the method sticky_cookie: a client keeps its host while that is there."""

import json
import re
import uuid

import pytest

testinfra_hosts = ["ansible://lb2"]
SITE = "https://10.87.15.14"


@pytest.fixture
def ask(host):
    def curl(path, cookie="", *options):
        """Return the cookie that an answer sets, or None, and what the backend said."""
        cookie = f"-H 'Cookie: evenkeel={cookie}'" if cookie else ""
        answer = host.check_output(f"curl -fsSki -m 15 {cookie} {' '.join(options)} '{SITE}{path}'")
        head, _, body = answer.replace("\r", "").partition("\n\n")
        cookies = re.findall("(?mi)^set-cookie: evenkeel=(.*)$", head)
        assert len(cookies) <= 1
        return (cookies or [None])[0], body

    return curl


def name(body):
    return json.loads(body)["host"]


def test_a_client_keeps_the_host_of_its_first_request(ask):
    given, body = ask("/a")
    value, _, attributes = given.partition(";")
    assert {each.strip() for each in attributes.split(";")} >= {"HttpOnly", "Secure"}
    answers = [ask("/a", value, *options) for options in ((), ("-d x",)) for _ in range(8)]
    assert {name(body) for _, body in answers} == {name(body)}
    assert {cookie for cookie, _ in answers} == {None}, "it has one already"


def test_clients_spread_over_the_hosts(ask):
    assert {name(ask("/a", uuid.uuid4().hex)[1]) for _ in range(20)} == {"app1", "app2"}


def test_a_cookie_that_is_none_of_ours_is_replaced(ask):
    assert re.match("[0-9a-f]{32};", ask("/a", "x" * 5000)[0])


def test_clients_of_a_stopped_host_get_another(ask, stopped):
    cookies = [uuid.uuid4().hex for _ in range(12)]
    answers = [ask("/a", cookie, *options) for cookie in cookies for options in ((), ("-d x",))]
    assert {name(body) for _, body in answers} == {"app2"}


def test_answers_that_others_may_store_set_no_cookie(ask, host):
    assert ask("/cache/no-store")[0]
    for path in ("/cached/cache/public", "/cached/cache/public%2C%20max-age=9", "/cache/public"):
        assert ask(path)[0] is None
    try:
        host.check_output("install -D -m 644 /dev/null /srv/static/abc/a.css")
        assert ask("/static/abc/a.css")[0] is None
    finally:
        host.check_output("rm -r /srv/static/abc")
