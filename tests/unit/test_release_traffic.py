"""How requests went: read from the log that nginx writes, and judged against what was before."""

import importlib.util
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000


def plugin(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


traffic = plugin(ROOT / "plugins/modules/release_traffic.py")
fault = plugin(ROOT / "plugins/filter/release.py").traffic_fault

TEMPLATE = (ROOT / "roles/nginx/templates/nginx.conf.j2").read_text()
FORMAT = "".join(
    re.findall(r"'(.*)'", re.search(r"log_format evenkeel .*?;\n", TEMPLATE, re.S).group())
)


def line(upstream="10.0.0.31:8000", statuses="200", seconds="0.010", ago=1):
    """A line as nginx would write it by the role's format."""
    last = statuses[-3:]
    values = {
        "time_iso8601": datetime.fromtimestamp(NOW - ago, UTC).isoformat(timespec="seconds"),
        "status": last if last.isdigit() else "499", "bytes_sent": "100", "request_time": "0.010",
        "upstream_addr": upstream, "upstream_status": statuses, "upstream_response_time": seconds,
    }  # fmt: skip
    text = re.sub(r"\$(\w+)", lambda found: values.get(found[1], ""), FORMAT)
    assert json.loads(text)["upstream"] == upstream
    return text + "\n"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "access.log"


def count(*logs, seconds=60, ports=("8000",)):
    return traffic.count(logs, set(ports), NOW - seconds)


def test_each_try_counts_for_the_server_that_it_was_made_on(log):
    log.write_text(
        line("10.0.0.31:8000, 10.0.0.32:8000", "502, 200", "0.001, 0.020")
        + line("10.0.0.21:6081 : 10.0.0.32:8000", "504 : 500", "3.000 : 0.040")
        + line("[2001:db8::1]:8000", "503", "0.5")
    )
    assert count(log) == {
        "10.0.0.31": {"requests": 1, "errors": {"502": 1}, "p99": 0.001},
        "10.0.0.32": {"requests": 2, "errors": {"500": 1}, "p99": 0.040},
        "2001:db8::1": {"requests": 1, "errors": {"503": 1}, "p99": 0.5},
    }


def test_what_no_server_answered_does_not_count(log):
    log.write_text(
        line("", "", "")  # a static file
        + line("balancer_web", "502", "0.000")  # no server was left to ask
        + line(statuses="-", seconds="-")  # the client went away first
        + line(statuses="101", seconds="3600.0")  # a WebSocket
        + line("10.0.0.31:8080")  # another service
        + line(statuses="404")  # the client's mistake
    )
    assert count(log) == {"10.0.0.31": {"requests": 1, "errors": {}, "p99": 0.01}}


def test_only_the_last_seconds_are_read(log, monkeypatch):
    monkeypatch.setattr(traffic, "BLOCK", 100)
    log.write_text("".join(line(ago=ago) for ago in range(120, 0, -1)))
    assert count(log, seconds=10)["10.0.0.31"]["requests"] == 10
    # A worker of nginx may write a moment later than another.
    log.write_text(line(ago=3) + line(ago=5) + line(ago=4) + line(ago=4))
    assert count(log, seconds=4)["10.0.0.31"]["requests"] == 3


def test_a_rotated_log_is_read_to_the_end(log):
    log.with_name("access.log.1").write_text(line(ago=90) + line(ago=5) * 3)
    assert count(log)["10.0.0.31"]["requests"] == 3
    log.write_text(line(ago=2))
    assert count(log)["10.0.0.31"]["requests"] == 4


def test_lines_that_are_none_and_logs_that_are_not_there(log, tmp_path):
    log.write_bytes(b'\n{"time"\n[]\n{"time": 3}\n' + line().encode() + b"\xff\n" + b'{"ti')
    assert count(log, tmp_path / "cache.log")["10.0.0.31"]["requests"] == 1
    assert count(tmp_path / "cache.log") == {}


def seen(requests=100, errors=0, p99=0.01):
    errors = {"500": errors} if errors else {}
    return {"traffic": {"10.0.0.31": {"requests": requests, "errors": errors, "p99": p99}}}


def judge(after, before=(), **limits):
    return fault(after, list(before), "10.0.0.31", **limits)


def test_errors_that_are_new_and_many_are_a_fault():
    said = judge([seen(50, 30), seen(20, 10)], [seen(300, 3)])
    assert said.startswith("40 of 70 requests failed since the switch (40 times 500), 3 of 300")


@pytest.mark.parametrize(
    ("after", "before"),
    [
        ([], []),  # no traffic, or no balancer that answered
        ([{"unreachable": True}, {"skipped": True}, seen(0)], []),
        ([seen(4, 4)], []),  # too few to say so
        ([seen(1000, 50)], []),  # not above the limit
        ([seen(100, 38)], [seen(100, 20)]),  # as before, more or less
        ([seen(1000, 0, p99=9)], [seen(1000, 0)]),  # no limit was given
    ],
)
def test_what_is_no_fault(after, before):
    assert judge(after, before) == ""


def test_the_operator_sets_the_limits():
    assert judge([seen(100, 6)])
    assert not judge([seen(100, 6)], errors="10")  # as -e gives it
    assert judge([seen(100, 41)], [seen(100, 20)])
    slow, quick = [seen(p99=0.9)], [seen(p99=0.2)]
    assert "took 0.9 s or more since the switch, 0.2 s before" in judge(slow, quick, p99="0.5")
    assert "allowed are 0.6 s" in judge(slow, quick, slower="3")
    assert not judge(slow, quick, p99=1, slower=5)
    assert not judge(slow, [], slower=3), "nothing to compare with"
    assert not judge([seen(99, p99=0.9)], quick, p99=0.5), "too few for a percentile"
