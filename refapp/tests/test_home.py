"""The page as the server renders it: nothing inline, every control named, forms that work alone."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browsing import Browser

from refapp import home

STATIC = Path(home.__file__).parent / "static"
FRONTEND = Path(home.__file__).parents[2] / "frontend"
VOID = {"meta", "link", "input", "img", "br", "hr"}
CONTROLS = {"input", "select", "textarea"}


class Elements(HTMLParser):
    """Every element of a page, as (name, attributes), and the words directly in scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inline, self._open = [], [], []
        self.feed(text)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            self.inline.append(data.strip())

    def all(self, *tags):
        return [attributes for tag, attributes in self.found if tag in tags]


@pytest.fixture
def browser(app):
    return Browser(app)


@pytest.fixture
def user(client, bearer, browser, item):
    """A browser of somebody who is no admin."""
    account = {"username": item, "password": "a long password of tests"}
    assert client.post("/users", json=account, headers=bearer).status_code == 201
    browser.log_in(**account)
    return browser


@pytest.fixture(params=["stranger", "admin"])
def pages(request, browser):
    """All pages, as a stranger and as an admin see them."""
    login = browser.get("/login")
    if request.param == "admin":
        browser.log_in()
    paths = ["/", "/account"] if request.param == "admin" else ["/"]
    return [login] + [browser.get(path) for path in paths]


def test_nothing_is_inline(pages):
    for page in pages:
        elements = Elements(page.text)
        assert not any(elements.inline)
        assert elements.all("style") == []
        for tag, attributes in elements.found:
            wrong = {name for name in attributes if name.startswith("on") or name == "style"}
            assert not wrong, f"{tag}: {wrong}"
            assert not re.match("javascript:|https?:", attributes.get("href") or "")
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'self';" in policy
        assert "unsafe" not in policy


def test_the_policy_lets_files_go_to_the_store_and_nowhere_else(client, object_store):
    policy = dict(
        part.strip().split(" ", 1)
        for part in client.get("/").headers["Content-Security-Policy"].split(";")
    )
    assert policy["connect-src"] == policy["img-src"] == f"'self' {object_store.url}"
    # Not 'self', which what users upload may be.
    assert policy["script-src"] == policy["style-src"] == "http://localhost/static/"


def test_every_control_has_a_label(pages):
    for page in pages:
        elements = Elements(page.text)
        labelled = {label["for"] for label in elements.all("label")}
        for attributes in elements.all(*CONTROLS):
            if attributes.get("type") != "hidden":
                assert attributes["id"] in labelled, attributes
        ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert len(elements.all("h1")) == len(elements.all("main")) == 1
        assert all(each.keys() & {"alt", "x-bind:alt"} for each in elements.all("img"))


def test_every_panel_says_which_pattern_it_shows(browser):
    browser.log_in()
    text = browser.get("/").text
    panels = re.findall(r'<section class="panel[^"]*" id="(\w+)" aria-labelledby="\1-title"', text)
    first = ["requests", "messages", "jobs", "uploads", "cron", "totals", "computation"]
    assert panels == [*first, "settings"]
    assert len(re.findall(r'<h2 id="\w+-title">[A-Z]\w+</h2>', text)) == len(panels)
    assert len(re.findall(r'<p class="pattern">[A-Z][^<]{40,120}\.</p>', text)) == len(panels)


def test_what_the_page_loads_is_there(browser, client):
    browser.log_in()
    page = browser.get("/").text
    files = re.findall(r'(?:href|src)="/static/0123456789ab/([^"]+)"', page)
    files = [STATIC / name for name in dict.fromkeys(files)]
    for file in files:  # grows while it is read
        assert file.is_file()
        if file.suffix == ".js" and file.parent.name != "vendor":
            imported = re.findall(r'^import .*?from "([^"]+)";', file.read_text(), re.M)
            files += [f for n in imported if (f := (file.parent / n).resolve()) not in files]
    ours = {path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".svg")}
    assert set(files) == ours
    module = client.get("/static/0123456789ab/js/main.js")
    assert module.mimetype == "text/javascript"


def test_libraries_are_those_of_the_lock():
    lock = json.loads((FRONTEND / "package-lock.json").read_text())["packages"]
    alpine = (STATIC / "vendor/alpine.js").read_text()
    assert f'"{lock["node_modules/@alpinejs/csp"]["version"]}"' in alpine
    client = (STATIC / "vendor/socket.io.js").read_text()
    assert f"Socket.IO v{lock['node_modules/socket.io-client']['version']}" in client
    assert not [name for name, package in lock.items() if "resolved" in package]


def test_an_admin_changes_settings_without_scripts(browser):
    browser.log_in()
    for name, value in (("banner", "Moving house"), ("log_level", "WARNING")):
        answer = browser.submit("/", f"/account/settings/{name}", value=value)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/#settings")
    assert browser.submit("/", "/account/settings/messages_open").status_code == 303
    page = browser.get("/")
    assert ">Moving house</p>" in page.text
    fields = Elements(page.text).all("input", "option")
    assert [each for each in fields if each.get("value") == "Moving house"]
    assert [each for each in fields if each.get("type") == "checkbox" and "checked" not in each]
    assert "<option selected>WARNING</option>" in page.text
    browser.submit("/", "/account/settings/banner", value="")
    browser.submit("/", "/account/settings/log_level", value="INFO")
    browser.submit("/", "/account/settings/messages_open", value="on")
    assert ">Moving house</p>" not in browser.get("/").text


def test_a_wrong_setting_is_shown_with_its_reason(browser):
    browser.log_in()
    answer = browser.submit("/", "/account/settings/log_level", value="LOUD")
    assert answer.status_code == 422
    assert 'role="alert">Must be one of: DEBUG, INFO, WARNING, ERROR.</p>' in answer.text
    assert "LOUD" not in browser.get("/").text


def test_settings_are_for_admins(user, browser):
    assert 'id="settings"' not in user.get("/").text
    assert user.submit("/", "/account/settings/banner", value="Mine").status_code == 403
    assert browser.send("POST", "/account/settings/banner", data={}).status_code == 400
    stranger = Browser(browser.clients[0].application)
    answer = stranger.submit("/login", "/account/settings/banner", value="Mine")
    assert (answer.status_code, answer.headers["Location"][:6]) == (303, "/login")
    assert ">Mine</p>" not in user.get("/").text


def test_strangers_see_the_page_while_everything_is_away(lonely):
    page = lonely.test_client().get("/")
    assert page.status_code == 200
    assert "One application, many hosts" in page.text
    known = Browser(lonely)
    known.cookies["__Host-session"] = "whatever"
    answer = known.get("/")
    assert (answer.status_code, "try again in a moment" in answer.text) == (200, True)
    assert "csrf" not in answer.text


def test_a_setting_is_not_called_changed_while_redis_is_away(browser, monkeypatch):
    browser.log_in()

    def away(*args):
        raise home.AwayError

    monkeypatch.setattr(home.settings, "change", away)
    answer = browser.submit("/", "/account/settings/banner", value="Lost")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
