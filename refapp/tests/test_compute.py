"""CPU-bound work runs beside the workers: bounded, streamed, and stopped with its reader."""

import contextlib
import http.client
import itertools
import json
import os
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from amounts import amount
from conftest import make_environ
from refapp.subset_sum import search
from selling import eventually
from web import Client

# No even numbers add up to an odd one, and it takes minutes to find out.
ENDLESS = {"data": list(range(2, 82, 2)), "sum": 801}


def address(data, sum):
    return f"/subset-sum?data={quote(json.dumps(data))}&sum={sum}"


class Stream:
    """A request whose answer is read line by line."""

    def __init__(self, web, data, sum, **options):
        self.connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
        self.connection.request("GET", address(data, sum))
        # Kept: http.client drops its socket once it knows that the server will close.
        self.socket = self.connection.sock
        self.answer = self.connection.getresponse()
        self.status = self.answer.status

    def line(self):
        return json.loads(self.answer.readline() or "null")

    def lines(self):
        return list(iter(self.line, None))

    def close(self):
        self.answer.close()
        self.connection.close()


@pytest.fixture
def compute(start, environ):
    """Start the process type that computes."""

    def run(**changes):
        settings = {f"REFAPP_CPU_{name.upper()}": str(value) for name, value in changes.items()}
        return start("release-0", changes=settings, workers=1, options=["--threads", "64"])

    return run


@pytest.fixture
def environ():
    """Nothing that the other parts of the application need is there."""
    return make_environ()


def programs(web):
    """The ids of the programs that a gunicorn's workers run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            worker = (path / "stat").read_text().rpartition(")")[2].split()[1]
            master = Path("/proc", worker, "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if b"subset_sum.py" in command and int(master) == web.process.pid:
            found.append(int(path.name))
    return found


def cpu_seconds(pid):
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_every_subset_is_found_and_no_other():
    data = [3, -1, 4, 1, -5, 9, 2, 6, -5, 0]
    for wanted in (-11, 0, 5, 25, 26):
        found = [subset for subset in search(data, wanted) if subset]
        expected = [
            subset
            for size in range(1, len(data) + 1)
            for subset in itertools.combinations(data, size)
            if sum(subset) == wanted
        ]
        assert sorted(found) == sorted(expected)


def test_results_are_streamed_as_they_are_found(compute):
    web = compute()
    stream = Stream(web, [*ENDLESS["data"], 801], 801)
    assert stream.answer.headers["Content-Type"] == "application/x-ndjson"
    assert stream.answer.headers["X-Accel-Buffering"] == "no"
    assert stream.answer.headers["Cache-Control"] == "no-store"
    assert stream.line() == {"event": "running"}
    other = Stream(web, [1, 2, 3, -3], 3)
    assert [line["event"] for line in other.lines()][-1] == "end"
    # A search for minutes still says that it lives, more often than the balancer gives up.
    began = time.monotonic()
    assert [stream.line() for _ in range(2)] == [{"event": "running"}] * 2
    assert time.monotonic() - began < 3
    stream.close()


def test_a_finished_search_says_so(compute):
    lines = Stream(compute(), [1, 2, 3, -3], 3).lines()
    assert lines[0] == {"event": "running"}
    assert {tuple(line["subset"]) for line in lines if line["event"] == "match"} == {
        (1, 2),
        (1, 2, 3, -3),
        (3,),
    }
    assert lines[-1]["event"] == "end"
    assert (lines[-1]["reason"], lines[-1]["matches"]) == ("complete", 3)


def test_the_pool_and_its_queue_are_bounded(compute):
    web = compute(slots=1, queue=1)
    first, second = Stream(web, **ENDLESS), Stream(web, **ENDLESS)
    assert first.line() == {"event": "running"}
    assert second.line() == {"event": "waiting"}
    third = Stream(web, **ENDLESS)
    assert third.status == 429
    assert int(third.answer.headers["Retry-After"]) > 0
    assert third.answer.headers["Content-Type"] == "application/problem+json"
    assert len(programs(web)) == 1
    first.close()
    eventually(lambda: second.line() == {"event": "running"}, 5)
    assert Stream(web, [1], 1).line() == {"event": "waiting"}


def test_it_ends_with_its_client(compute):
    web = compute(slots=2)
    streams = [Stream(web, **ENDLESS) for _ in range(2)]
    eventually(lambda: len(programs(web)) == 2)
    pids = programs(web)
    before = [cpu_seconds(pid) for pid in pids]
    eventually(lambda: all(cpu_seconds(p) > b for p, b in zip(pids, before, strict=True)), 10)
    streams[0].close()
    eventually(lambda: len(programs(web)) == 1, 2)
    streams[1].close()
    eventually(lambda: programs(web) == [], 2)
    eventually(lambda: 'outcome="cancelled"} 2.0' in metrics(web))


def metrics(web):
    return Client(web.port).get("/metrics")[1].decode()


def test_one_that_waits_leaves_with_its_client(compute):
    web = compute(slots=1, queue=1)
    first, second = Stream(web, **ENDLESS), Stream(web, **ENDLESS)
    second.close()
    eventually(lambda: Stream(web, **ENDLESS).status == 200)
    first.close()


def test_a_client_that_does_not_read_loses_its_slot(compute):
    web = compute(slots=1, queue=0)
    pairs = [sign * (10**12 - n) for n in range(32) for sign in (1, -1)]
    stuck = Stream(web, pairs, 0)
    eventually(lambda: programs(web))
    eventually(lambda: programs(web) == [], 15)  # it would have had 20 s
    stuck.close()
    assert Stream(web, [1], 1).lines()[-1]["reason"] == "complete"


def test_it_takes_no_more_time_than_agreed(compute):
    web = compute(seconds=1)
    began = time.monotonic()
    assert Stream(web, **ENDLESS).lines()[-1] == {"event": "end", "reason": "time"}
    assert time.monotonic() - began < 5
    # Its reader has the last line a moment before it is stopped.
    eventually(lambda: programs(web) == [], 5)


def test_it_uses_no_more_of_a_core_than_agreed(compute):
    web = compute(share=10)
    with contextlib.closing(Stream(web, **ENDLESS)):
        eventually(lambda: programs(web))
        [program] = programs(web)
        time.sleep(3)
        assert 0 < cpu_seconds(program) < 1


def test_it_gives_no_more_lines_than_agreed(compute):
    web = compute()
    lines = Stream(web, [0] * 64, 0).lines()
    assert lines[-1] == {"event": "end", "reason": "limit"}
    assert sum(line["event"] == "match" for line in lines) == 10_000
    # Its reader has the last line a moment before it is stopped.
    eventually(lambda: programs(web) == [], 5)


def test_a_program_that_is_killed_is_told_from_one_that_found_nothing(compute):
    web = compute()
    stream = Stream(web, **ENDLESS)
    eventually(lambda: programs(web))
    os.kill(programs(web)[0], signal.SIGKILL)
    assert stream.lines()[-1] == {"event": "end", "reason": "failed"}


def test_a_killed_worker_leaves_no_program_behind(compute):
    web = compute()
    stream = Stream(web, **ENDLESS)
    eventually(lambda: programs(web))
    [program] = programs(web)
    worker = int(Path("/proc", str(program), "stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not Path("/proc", str(program)).exists())
    stream.close()


def test_a_stop_lets_what_runs_finish_and_sends_on_what_waits(compute):
    web = compute(slots=1, queue=1, seconds=4)
    running, waiting = Stream(web, **ENDLESS), Stream(web, **ENDLESS)
    eventually(lambda: programs(web))
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(stream.lines) for stream in (running, waiting)]
        assert web.stop() == 0
        assert time.monotonic() - began < 12
        assert [end.result()[-1]["reason"] for end in ends] == ["time", "stopping"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sum=1", "data"),
        ("data=[1]", "sum"),
        ("data=[1&sum=1", "data"),
        ("data=1&sum=1", "data"),
        ("data=[]&sum=1", "data"),
        ("data=[1.5]&sum=1", "data"),
        ("data=[true]&sum=1", "data"),
        ("data=[1e3]&sum=1", "data"),
        ("data=[NaN]&sum=1", "data"),
        ("data=[1000000000001]&sum=1", "data"),
        (f"data={json.dumps([1] * 65)}&sum=1", "data"),
        (f"data={'[' * 3000}&sum=1", "data"),
        (f"data=[{'%20' * 4096}1]&sum=1", "data"),
        ("data=[1]&sum=x", "sum"),
        ("data=[1]&sum=1e400", "sum"),
    ],
)
def test_a_wrong_task_names_its_field(lonely, query, field):
    answer = lonely.test_client().get("/subset-sum?" + query.replace(" ", ""))
    assert answer.status_code == 422
    assert list(answer.json["errors"]["query"]) == [field]


def test_asking_for_the_head_keeps_no_slot(lonely):
    client = lonely.test_client()
    for _ in range(30):
        with client.head(address([1], 1)) as answer:  # servers close what they have answered
            assert answer.status_code == 200


def p99(port, requests=400):
    client, times = Client(port), []
    for _ in range(requests):
        began = time.perf_counter()
        assert client.get("/livez")[0] == 200
        times.append(time.perf_counter() - began)
        time.sleep(0.001)
    return statistics.quantiles(times, n=100)[98]


@pytest.mark.fleet
def test_the_web_workers_stay_quick_while_eight_compute(compute, start, make_listener):
    """Rounds with and without take turns, so that a noisy neighbour disturbs both alike."""
    web = start("web-0", on=make_listener())
    busy_host = compute(slots=8)
    idle, busy = [], []
    for _ in range(amount(5, 7)):
        idle.append(p99(web.port))
        streams = [Stream(busy_host, **ENDLESS) for _ in range(8)]
        eventually(lambda: len(programs(busy_host)) == 8)
        busy.append(p99(web.port))
        for stream in streams:
            stream.close()
        eventually(lambda: programs(busy_host) == [])
    print(f"p99 of /livez: idle {statistics.median(idle) * 1000:.2f} ms,"
          f" while 8 compute {statistics.median(busy) * 1000:.2f} ms")  # fmt: skip
    assert statistics.median(busy) <= 3 * statistics.median(idle)
