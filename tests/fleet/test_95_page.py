"""The page in Chromium through the balancer, used by two people at once; pictures of it are kept.

The steps are refapp/tests/visitor.py; refapp/tests/test_browser.py takes more of them, in detail.
"""

import re
import time

import pytest

from refapp.tests.pictures import make_picture
from refapp.tests.visitor import visitors
from tests.fleet.support import STATE

SCREENSHOTS = STATE / "screenshots"


@pytest.fixture(scope="module")
def visit(fleet):
    with visitors(fleet.url, fleet.ca) as visit:
        yield visit


@pytest.fixture(scope="module")
def admin(fleet, visit):
    """A browser in which the admin is logged in."""
    visitor = visit()
    visitor.log_in("admin", fleet.admin_password)
    return visitor


def test_a_stranger_sees_every_host_answer(fleet, visit):
    stranger = visit()
    stranger.open()
    stranger.until(lambda: stranger.hosts() == set(fleet.groups["app"]))
    assert [each.text for each in stranger.all(".strangers a")] == ["Log in"] * 5
    assert stranger.nameless() == []
    assert stranger.shift < 0.1
    stranger.shoot_all(SCREENSHOTS, "stranger")
    assert stranger.complaints() == []


def test_a_message_is_read_in_a_browser_on_another_host(fleet, visit, admin):
    reader = visit()
    reader.log_in("admin", fleet.admin_password)
    reader.come_online(admin.come_online())
    text = f"Is this seat taken? {time.time()}"
    admin.say(text)
    assert (admin.read(text), reader.read(text)) == (1, 1)
    reader.say(f"It is not. {text}")
    assert admin.read(f"It is not. {text}") == 1
    assert reader.complaints() == []


def test_a_picture_goes_to_the_store_and_is_seen(admin, tmp_path):
    name = f"hills-{time.time():.0f}.png"
    assert admin.upload(make_picture(tmp_path / name)) == 640
    admin.open()
    assert admin.find("#uploads img").accessible_name == name, "after a reload, too"


def test_a_job_is_watched_to_its_end(admin):
    progress = admin.watch(admin.queue("Five seconds of work"), "done")
    assert progress == sorted(progress)
    assert progress[-1] == 100
    assert len(progress) > 2, "it moved"


def test_a_sale_is_in_the_total_within_a_second(admin):
    said = admin.sell(f"page-{time.time():.0f}", 250)
    print(said)
    assert int(re.search(r"(\d+) ms after", said)[1]) < 1000
    admin.until(lambda: admin.text("#origin").startswith("the edge's cache"))
    assert admin.text("#total") == "250"


def test_subsets_come_as_they_are_found_until_they_are_cancelled(visit):
    visitor = visit()
    visitor.open()
    # One is a match by itself; among the others there is none, and minutes are needed to know.
    visitor.compute(" ".join(map(str, [801, *range(2, 82, 2)])), 801)
    visitor.until(lambda: [each.text for each in visitor.all(".found li")] == ["801"])
    assert visitor.text("#computation form button") == "Cancel"
    visitor.find("#computation form button").click()
    visitor.until(lambda: visitor.text("#computation [role=status]").startswith("Cancelled"))
    assert visitor.complaints() == []


def test_a_setting_is_in_effect_on_every_host(fleet, admin, visit):
    text = f"Moving house {time.time():.0f}"
    try:
        said = admin.change("banner", text)
        having, asked, hosts = re.search(r"in (\d+) of the (\d+) .* on (.*)\.", said).groups()
        assert having == asked
        assert hosts.split(", ") == sorted(fleet.groups["app"])
        stranger = visit()
        stranger.open()
        assert stranger.text(".banner") == text
    finally:
        admin.change("banner", "")


def test_the_page_is_whole(fleet, admin):
    """For the screenshots; and nothing on it jumps, is nameless, or is refused by the policy."""
    admin.open()
    assert admin.come_online() in fleet.groups["app"]
    admin.until(lambda: admin.hosts() == set(fleet.groups["app"]))
    admin.until(lambda: admin.text("#cron .facts dd") in fleet.groups["app"])
    admin.until(lambda: admin.text("#cron tbody td").endswith(" ago"))
    assert admin.shift < 0.1
    assert admin.nameless() == []
    admin.find("#requests .toolbar button:nth-child(2)").click()
    admin.watch(admin.queue("Five seconds of work"), "running")
    admin.shoot_all(SCREENSHOTS, "admin")
    assert admin.complaints() == []
    admin.log_out()
    admin.shoot_all(SCREENSHOTS, "login")
