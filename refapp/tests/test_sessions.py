"""The page's sessions: any process answers, nobody gets in by another's, Redis may be away."""

import json
import re
import secrets
import time
import uuid

import pytest
import redis
import services
from browsing import NAME, Browser
from conftest import ADMIN_PASSWORD, build
from host import Host
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from refapp.sessions import key


@pytest.fixture
def browser(app):
    return Browser(app)


@pytest.fixture
def stored(redis_server):
    """What is in Redis."""
    with redis.Redis(
        port=redis_server.port, password=services.PASSWORD, decode_responses=True
    ) as client:
        yield client


def who(answer):
    found = re.search(r'id="who">([^<]+)<', answer.text)
    return found and found[1]


def test_log_in_look_log_out(browser):
    answer = browser.get("/account")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/account")
    answer = browser.log_in()
    assert (answer.status_code, answer.headers["Location"]) == (303, "/account")
    page = browser.get("/account")
    assert who(page) == "admin"
    assert page.headers["Cache-Control"] == "no-store"
    assert "Cookie" in page.headers["Vary"]
    assert browser.submit("/account", "/logout").status_code == 303
    assert browser.get("/account").status_code == 303


@pytest.mark.parametrize("path", ["/livez", "/whoami", "/sales/total?item=item-1", "/none"])
def test_what_needs_no_session_does_not_vary_by_it(browser, path):
    """A cache of the edge would keep an answer for each browser, and purge only one of them."""
    browser.log_in()
    answer = browser.get(path)
    assert "Cookie" not in answer.headers.get("Vary", "")


def test_any_process_answers_any_request(monkeypatch, environ, app):
    other = build(monkeypatch, environ | {"APP_HOST": "app2"})
    browser = Browser(app, other)
    assert browser.log_in().status_code == 303
    hosts = set()
    for _ in range(6):
        page = browser.get("/account")
        assert who(page) == "admin"
        hosts |= set(re.findall(r"\bapp\d\b", page.text))
    assert hosts == {"app1", "app2"}
    browser.submit("/account", "/logout")
    assert [browser.get("/account").status_code for _ in range(2)] == [303, 303]


def test_the_cookie_is_for_this_site_over_tls_only(browser):
    for answer in (browser.get("/login"), browser.log_in()):
        [cookie] = answer.headers.getlist("Set-Cookie")
        name, *attributes = cookie.split("; ")
        assert name.startswith(f"{NAME}=")
        assert len(name) < 200
        assert set(attributes) == {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}


def test_strangers_leave_nothing_in_redis(app, stored):
    """It refuses every write when it is full, and anybody may ask for the form."""
    before = stored.dbsize()
    for _ in range(200):
        page = Browser(app).get("/login")
        assert page.status_code == 200
        assert "Set-Cookie" in page.headers
    assert stored.dbsize() <= before


def send_form(browser, page):
    """Log in by a form that was shown before."""
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)[1]
    data = {"csrf_token": token, "username": "admin", "password": ADMIN_PASSWORD}
    return browser.send("POST", "/login", data=data)


@pytest.mark.parametrize(("age", "status"), [(-5, 303), (29 * 60, 303), (31 * 60, 400)])
def test_a_form_waits_for_half_an_hour(browser, monkeypatch, age, status):
    """The clock of the host that made it may be ahead."""
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) - age)
        page = browser.get("/login")
    assert send_form(browser, page).status_code == status
    assert browser.get("/account").status_code == (200 if status == 303 else 303)


def forged(secret, salt):
    me = {"login": str(uuid.uuid4()), "user": str(uuid.uuid4()), "name": "admin", "roles": []}
    return URLSafeTimedSerializer(secret, salt=salt).dumps(me)


@pytest.mark.parametrize(
    "forge",
    [
        lambda own: forged("another key", "anonymous session"),
        lambda own: forged("secret-key-of-tests", "wtf-csrf-token"),
        lambda own: own[:-1] + ("A" if own[-1] != "A" else "Q"),
        lambda own: "e30" + own[own.index(".") :],
        lambda own: own.partition(".")[0],
        lambda own: "..",
    ],
)
def test_a_forged_cookie_is_none(browser, forge):
    page = browser.get("/login")
    cookie = browser.cookies[NAME] = forge(browser.id)
    assert send_form(browser, page).status_code == 400
    browser.cookies[NAME] = cookie
    assert browser.get("/account").status_code == 303
    browser.get("/login")
    assert browser.id != cookie


def test_a_form_of_the_release_before_is_taken(browser, stored):
    """It keeps every session in Redis."""
    before = browser.cookies[NAME] = secrets.token_urlsafe(32)
    known = {"csrf_token": secrets.token_hex(20)}
    stored.set(key(before), json.dumps(known), ex=1800)
    page = browser.get("/login")
    assert browser.id == before
    assert send_form(browser, page).status_code == 303
    assert who(browser.get("/account")) == "admin"
    assert not stored.exists(key(before))
    assert stored.ttl(key(browser.id)) > 1800


def test_logging_out_leaves_nothing_in_redis(browser, stored):
    browser.log_in()
    before = browser.id
    assert json.loads(stored.get(key(before)))["name"] == "admin"
    browser.submit("/account", "/logout")
    assert not stored.exists(key(before))
    assert browser.id is None


def test_logging_in_renews_the_id(browser, app):
    browser.get("/login")
    before = browser.id
    browser.log_in()
    assert browser.id not in (None, before)
    planted = Browser(app)
    planted.cookies[NAME] = before
    assert planted.get("/account").status_code == 303


def test_an_id_that_we_did_not_give_is_not_taken_up(browser):
    browser.cookies[NAME] = "chosen-by-somebody"
    browser.get("/login")
    assert browser.id != "chosen-by-somebody"


def test_an_old_cookie_is_worth_nothing_after_logout(browser, app):
    browser.log_in()
    thief = Browser(app)
    thief.cookies = dict(browser.cookies)
    assert who(thief.get("/account")) == "admin"
    browser.submit("/account", "/logout")
    assert thief.get("/account").status_code == 303


@pytest.mark.parametrize(
    ("form", "path"), [("/login", "/login"), ("/account", "/logout"), ("/login", "/account/token")]
)
@pytest.mark.parametrize("token", [None, "", "wrong", "another session's"])
def test_a_form_of_another_site_does_nothing(app, form, path, token):
    browser, stranger = Browser(app), Browser(app)
    browser.log_in()
    if token == "another session's":
        page = stranger.get("/login").text
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
    data = {"username": "admin", "password": ADMIN_PASSWORD}
    if token is not None:
        data["csrf_token"] = token
    before = browser.id
    answer = browser.send("POST", path, data=data)
    assert answer.status_code == 400
    assert "CSRF" in answer.text
    assert browser.id == before
    assert who(browser.get("/account")) == "admin", "still logged in"


def test_every_form_has_a_token(browser):
    browser.log_in()
    for page in ("/login", "/account", "/"):
        text = browser.get(page).text
        posts = re.findall(r'<form[^>]*method="post"', text)
        assert len(re.findall(r'name="csrf_token" value="[^"]{20,}"', text)) == len(posts)


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "//[",
        "//a]",
    ],
)
def test_a_login_leads_nowhere_else(browser, path):
    assert browser.log_in(next=path).headers["Location"] == "/account"


def test_a_login_leads_back(browser):
    assert browser.log_in(next="/account?a=1").headers["Location"] == "/account?a=1"


@pytest.mark.parametrize("fields", [{"password": "wrong"}, {"username": ""}, {"password": "\0"}])
def test_a_wrong_login_shows_the_form_again(browser, fields):
    answer = browser.log_in(**fields)
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert ADMIN_PASSWORD not in answer.text
    assert browser.get("/account").status_code == 303


def test_guessing_by_the_form_is_bounded(browser):
    name = uuid.uuid4().hex
    seen = [browser.log_in(username=name, password="wrong").status_code for _ in range(11)]
    assert seen == [401] * 10 + [429]


def test_what_people_type_is_not_markup(browser):
    text = browser.log_in(username='"><script>x</script>', password="wrong").text
    assert "<script>" not in text


def test_a_script_of_the_page_gets_a_token(browser, client):
    browser.log_in()
    page = browser.get("/account").text
    csrf = {"X-CSRFToken": re.search(r'name="csrf_token" value="([^"]+)"', page)[1]}
    token = browser.send("POST", "/account/token", headers=csrf)
    assert token.status_code == 200
    bearer = {"Authorization": f"Bearer {token.json['access_token']}"}
    sale = {"item": "by-page", "amount": 1}
    assert client.post("/sales", json=sale, headers=bearer).status_code == 201
    browser.submit("/account", "/logout")
    assert client.post("/sales", json=sale, headers=bearer).status_code == 401
    assert browser.send("POST", "/account/token", headers=csrf).status_code in (400, 401)


def test_logging_out_everywhere_ends_other_browsers_and_tokens(app, client):
    browser, other = Browser(app), Browser(app)
    browser.log_in()
    other.log_in()
    browser.submit("/account", "/logout", everywhere="1")
    assert other.get("/account").status_code == 303


def test_the_api_takes_no_cookie_for_a_login(browser):
    browser.log_in()
    answer = browser.send("POST", "/sales", json={"item": "by-cookie", "amount": 1})
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_without_redis_there_is_a_page_that_says_so(browser, app, redis_server):
    browser.log_in()
    stranger = Browser(app)
    redis_server.stop()
    try:
        for path in ("/account", "/login"):
            answer = browser.get(path)
            assert answer.status_code == 503
            assert answer.mimetype == "text/html"
            assert answer.headers["Retry-After"] == "2"
            assert "try again" in answer.text.lower()
            assert not re.search(r"Traceback|redis|File ", answer.text, re.I)
        # Who needs no session is not asked for one.
        for path in ("/", "/livez", "/whoami", "/sales/total?item=item-1"):
            assert browser.get(path).status_code == 200
        assert stranger.get("/login").status_code == 200
        assert stranger.log_in().status_code == 503
    finally:
        redis_server.start()


def test_redis_lost_between_reading_and_writing(browser, app, redis_server):
    """The answer that was ready is replaced, and the log has what was sent."""
    statuses = []

    @app.get("/touch")
    def touch():
        from flask import session

        session["x"] = 1
        redis_server.stop()
        return "never sent"

    app.after_request_funcs[None].insert(0, lambda r: statuses.append(r.status_code) or r)
    browser.log_in()
    try:
        answer = browser.get("/touch")
        assert answer.status_code == 503
        assert "never sent" not in answer.text
        assert "Set-Cookie" not in answer.headers
    finally:
        redis_server.start()
    assert statuses[-1] == 503


@pytest.mark.fleet
def test_real_processes_alternately(environ, directory, redis_server):
    """Two gunicorns, each with workers of its own, and a client that goes round."""
    webs = [
        Host(directory, environ | {"APP_HOST": host, "APP_ENV": "development"})
        for host in ("app1", "app2")
    ]
    import requests

    client = requests.Session()
    client.trust_env = False
    turn = iter(webs * 20)

    def send(method, path, **options):
        return client.request(
            method, next(turn).url + path, timeout=10, allow_redirects=False, **options
        )

    try:
        for web in webs:
            web.start()
        page = send("GET", "/login").text
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
        data = {"csrf_token": token, "username": "admin", "password": ADMIN_PASSWORD}
        assert send("POST", "/login", data=data).status_code == 303
        pages = [send("GET", "/account") for _ in range(12)]
        assert {who(page) for page in pages} == {"admin"}
        assert {host for page in pages for host in re.findall(r"\bapp\d\b", page.text)} == {
            "app1",
            "app2",
        }
    finally:
        for web in webs:
            web.stop()
