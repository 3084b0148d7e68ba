"""The cache: stores what it may, purges when told by the app, and helps when the app is down."""

import json
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

CACHE = "http://10.87.16.11:6081"  # asked from this machine, which stands for a balancer

testinfra_hosts = ["ansible://app1"]


def get(path, **headers):
    try:
        asked = urllib.request.Request(CACHE + path, headers=headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.headers.get("X-Cache"), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("X-Cache"), None


@pytest.fixture
def page():
    """A page nobody asked for, that may be stored for a minute."""
    return f"/cache/max-age=60/{uuid.uuid4()}"


def test_the_second_answer_is_stored(page):
    assert get(page)[:2] == (200, "MISS")
    status, said, body = get(page)
    assert (status, said, body["hits"]) == (200, "HIT", 1)


def test_what_may_not_be_stored_is_not(page):
    path = page.replace("max-age=60", "no-store")
    get(path)
    assert get(path)[2]["hits"] == 2


def test_a_page_is_one_for_all_cookies_and_one_purge_drops_it(host, page):
    path = page.replace("/cache/", "/vary/Cookie, Accept-Encoding/cache/").replace(" ", "%20")
    cookies = [{}, {"Cookie": "a=1"}, {"Cookie": "a=2"}]
    status, said, body = get(path, Cookie="a=0")
    assert (status, said) == (200, "MISS")
    assert "cookie" not in body["headers"]
    assert [get(path, **cookie)[1] for cookie in cookies] == ["HIT"] * 3
    host.check_output(f"curl -fsS -o /dev/null -X PURGE '{CACHE}{path}'")
    assert [get(path, **cookie)[2]["hits"] for cookie in cookies] == [2] * 3


def test_a_page_that_varies_by_more_is_not_stored(page):
    path = page.replace("/cache/", "/vary/Accept-Language/cache/")
    assert [get(path)[2]["hits"] for _ in range(2)] == [1, 2]


def test_an_error_is_not_stored(host, page):
    path = page.replace("/cache/", "/status/500/cache/")
    assert [get(path)[0] for _ in range(3)] == [500] * 3
    hits = json.loads(host.check_output("curl -sS -m 5 http://127.0.0.1:8000/hits"))
    assert hits[f"GET {path}"] == 3


def test_concurrent_requests_cost_one(page):
    path = page.replace("/cache/", "/sleep/1/cache/")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(get, [path] * 20))
    assert {answer[0] for answer in answers} == {200}
    assert max(answer[2]["hits"] for answer in answers) == 1


def test_only_the_app_may_purge(host, page):
    get(page)
    refused = urllib.request.Request(CACHE + page, method="PURGE")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(refused, timeout=5)
    assert error.value.code in (403, 405)
    assert get(page)[1] == "HIT"
    code = host.check_output(f"curl -s -o /dev/null -w '%{{http_code}}' -X PURGE {CACHE}{page}")
    assert code == "200"
    assert get(page)[1] == "MISS"


def test_a_stale_page_is_better_than_an_error(host):
    path = f"/cache/max-age=1,stale-if-error=60/{uuid.uuid4()}"
    assert get(path)[1] == "MISS"
    try:
        host.check_output("systemctl stop backend && sleep 2")
        status, said, _ = get(path)
        assert (status, said) == (200, "STALE")
    finally:
        host.check_output(
            "systemctl start backend && timeout 20 sh -c "
            "'until curl -sf -m 1 http://127.0.0.1:8000/hits; do sleep 0.2; done'"
        )


def test_a_stored_page_is_better_than_an_error_of_the_app(host):
    """Without a word in Cache-Control; where nothing is stored, the error is told."""
    flag = "curl -fsS -o /dev/null 'http://127.0.0.1:8000/flag{}'"
    path, other = (f"/cache/max-age=1/{uuid.uuid4()}" for _ in range(2))
    assert get(path)[1] == "MISS"
    try:
        host.check_output("sleep 2")
        for status in (500, 502, 503, 504):
            host.check_output(flag.format(f"?status={status}"))
            assert get(path)[:2] == (200, "STALE"), status
            assert get(other)[0] == status
    finally:
        host.check_output(flag.format(""))
    status, said, body = get(path)
    assert (status, said, body["hits"]) == (200, "EXPIRED", 6)
