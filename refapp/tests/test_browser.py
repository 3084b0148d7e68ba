"""The page in Chromium, before a site of two hosts: everything real but the object store."""

import contextlib
import re
import socket
import tempfile
import time
from pathlib import Path

import pytest
import requests
from balancer import Balancer
from conftest import ADMIN_PASSWORD, forget_settings, make_token
from pictures import make_picture
from visitor import read_axe, visitors
from web import Web
from workers import Process

RELEASE = "0123456789ab"
ENDLESS = ", ".join(str(even) for even in range(2, 82, 2))  # none of them add up to 801
# What live regions say in five seconds.
ANNOUNCED = """
const told = [];
const observer = new MutationObserver((changes) => told.push(...changes.map(
  ({ target }) => (target.parentElement ?? target).textContent)));
for (const region of document.querySelectorAll(
  "[role=status], [role=alert], [role=log], [aria-live]"))
  observer.observe(region, { subtree: true, childList: true, characterData: true });
setTimeout(() => arguments[0](told), 5000);
"""
SCREENSHOTS = Path(__file__).resolve().parents[2] / ".lab/screenshots"


@pytest.fixture(scope="module")
def site(session_environ, directory, redis_server):
    """Two hosts with every process type, behind a balancer."""
    here = Path(tempfile.mkdtemp(dir=directory))
    forget_settings(redis_server)
    with contextlib.ExitStack() as stack:
        stack.callback(forget_settings, redis_server)
        balancer = Balancer(here)
        environ = session_environ | {"REFAPP_S3_PUBLIC_ENDPOINT": balancer.url}

        def serve(host, kind, app, workers, **changes):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
            (here / host / kind).mkdir(parents=True)
            given = environ | {"APP_HOST": host, "APP_PROCESS": kind, **changes}
            server = Web(given, listener, here / host / kind, RELEASE, workers, app=app)
            stack.callback(server.log.close)
            stack.callback(server.stop)
            return f"http://127.0.0.1:{server.port}"

        hosts = ("app1", "app2")
        one = {"REFAPP_CPU_SLOTS": "1", "REFAPP_CPU_QUEUE": "0"}  # at a time
        routes = {
            "/subset-sum": [serve("app1", "cpu", "refapp.wsgi:app", 1, **one)],
            "/socket.io/": [serve(h, "realtime", "refapp.realtime.wsgi:app", 1) for h in hosts],
            "/refapp-uploads/": [environ["REFAPP_S3_ENDPOINT"]],
            "/": [serve(h, "web", "refapp.wsgi:app", 2) for h in hosts],
        }
        for host in hosts:
            stack.callback(Process(environ, here / host, host).end)
        cron = Process(environ, here, "app2", "-m", "refapp.cron", APP_PROCESS="cron")
        stack.callback(cron.end)
        balancer.start(routes)
        stack.callback(balancer.stop)
        yield balancer


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    return read_axe(tmp_path_factory.mktemp("axe"))


@pytest.fixture
def visit(site):
    with visitors(site.url, site.certificate) as visit:
        yield visit


@pytest.fixture
def admin(visit):
    """A browser in which the admin is logged in."""
    visitor = visit()
    visitor.log_in("admin", ADMIN_PASSWORD)
    return visitor


def test_a_stranger_sees_the_fleet_and_where_to_log_in(visit):
    visitor = visit()
    visitor.open()
    visitor.until(lambda: visitor.hosts() == {"app1", "app2"})
    visitor.until(lambda: visitor.text("#requests .sum").startswith("8 requests, 2 hosts"))
    assert [each.text for each in visitor.all(".strangers a")] == ["Log in"] * 5
    assert visitor.all("#settings") == []
    assert visitor.nameless() == []
    assert visitor.shift < 0.1
    visitor.shoot_all(SCREENSHOTS, "local-stranger")
    assert visitor.complaints() == []


def test_a_message_is_read_in_another_browser(visit, admin):
    reader = visit()
    reader.log_in("admin", ADMIN_PASSWORD)
    text = f"<b>Hello</b> & good evening {time.time()}"
    hosts = [here := admin.come_online(), reader.come_online(here)]
    assert sorted(hosts) == ["app1", "app2"]
    admin.say(text)
    assert (admin.read(text), reader.read(text)) == (1, 1)
    assert admin.complaints() == reader.complaints() == []


def test_a_client_id_that_two_use_hides_neither_message(site, admin):
    def post(name, text):
        headers = {"Authorization": f"Bearer {make_token(name)}", "Idempotency-Key": key}
        answer = requests.post(
            f"{site.url}/messages",
            json={"text": text},
            headers=headers,
            verify=site.certificate,
            timeout=10,
        )
        assert answer.status_code == 201, answer.text

    key = f"both-{time.time()}"
    texts = [f"{name} says {key}" for name in ("one", "other")]
    admin.come_online()
    for text in texts:
        post(text.split()[0], text)
        admin.read(text)
    shown = [each.text for each in admin.all("#messages .message .text")]
    assert [text for text in shown if text in texts] == texts
    admin.open()
    assert [admin.read(text) for text in texts] == [1, 1], "after a reload, too"
    assert admin.complaints() == []


def test_a_screen_reader_is_left_in_peace(admin):
    """Nothing happens, so there is nothing to tell; the requests go on."""
    admin.come_online()
    before = admin.text("#requests .sum")
    told = admin.browser.execute_async_script(ANNOUNCED)
    assert len(told) <= 2, told
    assert admin.text("#requests .sum") != before


def test_a_picture_is_uploaded_and_seen(admin, tmp_path, object_store):
    assert admin.upload(make_picture(tmp_path / "hills.png")) == 640
    admin.open()
    assert admin.find("#uploads img").accessible_name == "hills.png", "after a reload, too"
    assert admin.complaints() == []


def test_jobs_are_watched_to_their_end_and_dead_ones_retried(admin):
    progress = admin.watch(admin.queue("Five seconds of work"), "done")
    assert progress == sorted(progress)
    assert progress[-1] == 100
    assert len(progress) > 2, "it moved"
    all_dead = [admin.queue("Work that fails twice, then is dead") for _ in range(3)]
    for dead in all_dead:
        admin.watch(dead, "dead")
    listed = "#jobs-dead [data-id]"
    admin.until(lambda: {e.get_attribute("data-id") for e in admin.all(listed)} >= set(all_dead))
    entry = f"#jobs-dead [data-id='{dead}']"
    assert "failure 2 of the 2 asked for" in admin.text(entry)
    admin.find(f"{entry} button").click()
    admin.until(lambda: not admin.all(entry))
    admin.watch(dead, "dead")


def test_cron_says_who_leads_and_what_is_next(admin):
    admin.until(lambda: admin.text("#cron .facts dd").startswith("app2"))
    pulse = admin.until(lambda: admin.find("#cron tbody tr").text)
    assert "pulse" in pulse
    admin.until(lambda: " s ago in " in admin.find("#cron tbody tr").text.replace("\n", " "))


def test_a_sale_is_in_the_total_at_once(admin, item):
    for sold, total in ((250, "250"), (1_000, "1,250")):
        said = admin.sell(item, sold)
        assert int(re.search(r"(\d+) ms after", said)[1]) < 1000
        assert admin.text("#total") == total
        assert admin.text("#origin") == "the application, asked just now"
    assert admin.complaints() == []


def test_subsets_come_as_they_are_found_until_they_are_cancelled(visit):
    visitor, other = visit(), visit()
    news, button = "#computation [role=status]", "#computation form button"
    visitor.open()
    visitor.compute("1 2, 3; -3", 3)
    visitor.until(lambda: visitor.text(news).startswith("Complete"))
    shown = {each.text for each in visitor.all(".found li")}
    assert shown == {"3", "1 + 2", "1 + 2 + 3 \N{MINUS SIGN} 3"}
    visitor.compute(f"801 {ENDLESS}", 801)
    visitor.until(lambda: [each.text for each in visitor.all(".found li")] == ["801"])
    assert (visitor.text(button), visitor.text("#matches")) == ("Cancel", "1")
    other.open()
    other.compute("1 2", 3)
    busy = "Every process is busy. Try again in 5 s."
    other.until(lambda: other.text("#computation .problem") == busy)
    visitor.find(button).click()
    visitor.until(lambda: visitor.text(news).startswith("Cancelled"))
    assert visitor.text(button) == "Compute"

    def free():
        other.compute("1 2", 3)
        other.until(lambda: other.text(button) == "Compute")
        return other.text(news).startswith("Complete")

    other.until(free)
    other.compute("1 two", 3)
    other.until(lambda: other.text("#computation .problem") == "“two” is not a whole number.")
    assert visitor.complaints() == []


def test_settings_are_changed_for_every_process(admin, visit):
    said = admin.change("banner", "Moving house on Sunday")
    found = re.search(r"in (\d+) of the (\d+) processes that answered, on app1, app2", said)
    assert found[1] == found[2] == "4"
    assert admin.text(".banner") == "Moving house on Sunday"
    admin.change("log_level", "WARNING")
    admin.change("messages_open", False)
    stranger = visit()
    stranger.open("/login")
    assert stranger.text(".banner") == "Moving house on Sunday"
    admin.open()
    assert not admin.find("#setting-messages_open").is_selected()
    for name, value in (("messages_open", True), ("log_level", "INFO"), ("banner", "")):
        admin.change(name, value)
    assert not admin.find(".banner").is_displayed()


def test_the_page_with_everything_on_it(admin, tmp_path):
    """For the screenshots; and nothing on it jumps, is nameless, or is refused by the policy."""
    admin.come_online()
    for text in ("Good morning from the first floor.", "Who has the keys of the store room?"):
        admin.say(text)
        admin.read(text)
    admin.upload(make_picture(tmp_path / "evening.png"))
    admin.sell("item-1", 100)
    admin.compute("2 3 5 7 11 13 17 19 23 29 31 37", 60)
    admin.find("#requests .toolbar button:nth-child(2)").click()
    admin.until(lambda: admin.text("#cron tbody td").endswith(" ago"))
    admin.watch(admin.queue("Five seconds of work"), "running")
    admin.shoot_all(SCREENSHOTS, "local-admin")
    assert admin.nameless() == []
    admin.open()
    time.sleep(3)
    assert admin.shift < 0.1
    assert admin.complaints() == []
    admin.log_out()
    admin.shoot_all(SCREENSHOTS, "local-login")


def test_no_page_has_a_barrier(visit, axe, tmp_path):
    """By axe-core's rules for WCAG 2 A and AA: at both widths, dark and light."""
    visitor = visit()
    for path in ("/", "/login"):
        visitor.open(path)
        assert visitor.barriers(axe) == [], path
    visitor.browser.execute_script("document.querySelector('h1').style.opacity = 0.2")
    found = visitor.barriers(axe)
    assert len(found) == 4, "it looks, each time"
    assert all("color-contrast" in each for each in found)
    visitor.open("/login")
    visitor.find("#username").send_keys("nobody\twrong\n")
    visitor.find(".problem")
    assert visitor.barriers(axe) == [], "a wrong password"
    visitor.browser.execute_script("document.querySelector('[name=csrf_token]').value = ''")
    visitor.find("#password").send_keys("wrong\n")
    visitor.until(lambda: "give us this number" in visitor.text("main"))
    assert visitor.barriers(axe) == [], "an error"
    visitor.log_in("admin", ADMIN_PASSWORD)
    visitor.open("/account")
    assert visitor.barriers(axe) == [], "/account"
    visitor.open()
    visitor.come_online()
    visitor.say("Good evening.")
    visitor.upload(make_picture(tmp_path / "night.png"))
    visitor.sell("item-1", 100)
    visitor.compute("2 3 5 7 11 13 17 19 23 29 31 37", 60)
    visitor.watch(visitor.queue("Work that fails twice, then is dead"), "dead")
    visitor.change("banner", "Moving house")
    assert visitor.barriers(axe) == [], "all panels"
    visitor.change("banner", "")
