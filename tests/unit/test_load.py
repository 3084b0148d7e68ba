"""The steady load against a server that fails in known ways."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web

from plugins.load import ROOT, running
from plugins.load.__main__ import runs
from plugins.load.client import Load, Options


class Site:
    """A small site that notes what it was sent."""

    def __init__(self):
        self.sales = []
        self.keys = []
        self.requests = 0
        self.url = ""
        self.invented = 0
        self.files = []
        self.spoilt = None

    async def whoami(self, request):
        self.requests += 1
        return web.json_response({"host": "app1", "release": "abc", "pid": 1})

    async def cut(self, request):
        """Close a kept connection without an answer, at every fifth request."""
        self.requests += 1
        if self.requests % 5 == 0:
            request.transport.abort()
        return web.json_response({})

    async def broken(self, request):
        headers = {"X-Request-ID": "r1", "Retry-After": "7"}
        return web.Response(status=500, text="no", headers=headers)

    async def login(self, request):
        given = await request.json()
        if given != {"username": "admin", "password": "right"}:
            return web.Response(status=401)
        return web.json_response({"access_token": "token"})

    async def sell(self, request):
        if request.headers["Authorization"] != "Bearer token":
            return web.Response(status=401)
        self.sales.append((await request.json())["item"])
        self.keys.append(request.headers.get("Idempotency-Key"))
        return web.json_response({"id": len(self.sales)}, status=201)

    async def sold(self, request):
        count = self.keys.count(request.query["idempotency_key"])
        return web.json_response({"count": count + self.invented})

    async def hang(self, request):
        """Hold every tenth job for longer than a client waits."""
        self.requests += 1
        if self.requests % 10 == 0:
            await asyncio.sleep(2.2)
        return web.json_response({"id": self.requests}, status=202)

    async def announce(self, request):
        number = len(self.files)
        self.files.append(b"")
        put = {"url": f"{self.url}/store/{number}?signature=a%2Fb", "headers": {}}
        return web.json_response({"id": str(number), "upload": put}, status=201)

    async def put(self, request):
        assert request.raw_path.endswith("signature=a%2Fb")
        self.files[int(request.match_info["number"])] = await request.read()
        return web.Response()

    async def complete(self, request):
        number = request.match_info["number"]
        url = f"{self.url}/store/{number}?signature=a%2Fb"
        return web.json_response({"id": number, "get_url": url})

    async def file(self, request):
        number = int(request.match_info["number"])
        return web.Response(body=b"other bytes" if number == self.spoilt else self.files[number])

    async def slow(self, request):
        await asyncio.sleep(5)
        return web.Response()


@pytest.fixture
def site():
    site = Site()
    app = web.Application()
    app.router.add_get("/whoami", site.whoami)
    app.router.add_get("/cut", site.cut)
    app.router.add_get("/broken", site.broken)
    app.router.add_get("/slow", site.slow)
    app.router.add_post("/auth/login", site.login)
    app.router.add_post("/sales", site.sell)
    app.router.add_get("/sales", site.sold)
    app.router.add_post("/jobs", site.hang)
    app.router.add_post("/uploads", site.announce)
    app.router.add_put("/store/{number}", site.put)
    app.router.add_get("/store/{number}", site.file)
    app.router.add_post("/uploads/{number}/complete", site.complete)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    loop.run_until_complete(runner.setup())
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(listener.start())
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield site
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "plugins.load", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_good_site_has_no_failure_and_says_who_answered(site):
    with running(site.url, gets=["/whoami"], clients=8) as load:
        pass
    report = load.report
    assert report["failed"] == 0
    assert report["requests"] == report["counts"]["get"] == site.requests >= 8
    assert report["hosts"] == {"app1": site.requests}
    assert report["releases"]["abc"]["count"] == site.requests
    assert 8 <= report["connections"] <= site.requests


def test_rate_and_duration_are_bounds(site):
    done = command("--url", site.url, "--get", "/whoami", "--rate", "50", "--duration", "2")
    assert done.returncode == 0, done.stderr
    assert 80 <= site.requests <= 110
    assert "0 failed" in done.stdout


def test_count_is_a_bound(site):
    done = command("--url", site.url, "--get", "/whoami", "--rate", "0", "--count", "33")
    assert done.returncode == 0, done.stderr
    assert site.requests == 33


def test_a_closed_connection_is_a_failure_and_is_not_sent_again(site):
    with running(site.url, gets=["/cut"], clients=4, count=50, fresh=0) as load:
        load.wait()
    assert load.report["requests"] == site.requests == 50
    assert load.report["failed"] == len(load.report["failures"]) == 10
    assert load._process.returncode == 1


def test_a_retry_is_only_on_request(site):
    with running(site.url, gets=["/cut"], clients=1, count=50, retry_idempotent=1) as load:
        load.wait()
    assert load.report["failed"] == 0
    assert load.report["retries"] == site.requests - 50 >= 10


def test_a_failure_says_what_and_where(site):
    with running(site.url, gets=["/whoami", "/broken"], clients=4, rate=200) as load:
        pass
    failure = load.report["failures"][0]
    assert (failure["status"], failure["url"]) == (500, "GET /broken")
    assert (failure["request_id"], failure["body"]) == ("r1", "no")
    assert failure["retry_after"] == "7"
    assert load.report["failed_by_kind"]["get"] == load.report["statuses"]["500"]
    assert "GET /broken" in load.summary


def test_a_slow_answer_is_a_failure(site):
    done = command("--url", site.url, "--get", "/slow", "--timeout", "0.3", "--count", "1")
    assert done.returncode == 1
    assert "timeout" in done.stdout


def test_every_acknowledged_sale_is_kept(site):
    with running(
        site.url, gets=["/whoami"], sales=0.5, sales_password="right", clients=4, rate=200
    ) as load:
        pass
    kept = load.report["acknowledged"]
    assert sorted(sale["item"] for sale in kept) == sorted(site.sales)
    assert sorted(sale["key"] or "" for sale in kept) == sorted(key or "" for key in site.keys)
    assert {sale["id"] for sale in kept} == set(range(1, len(site.sales) + 1))
    assert load.report["unacknowledged"] == []


def test_the_password_may_come_from_a_file(site, tmp_path):
    (tmp_path / "password").write_text("right\n")
    options = {"password-file": tmp_path / "password", "sales": 0.5, "count": 20}
    with running(site.url, gets=["/whoami"], clients=4, **options) as load:
        assert load.wait() == 0


def test_a_wrong_password_stops_the_load(site):
    with (
        pytest.raises(RuntimeError, match="login failed: status 401"),
        running(site.url, sales=0.5, sales_password="wrong"),
    ):
        pass


def test_the_stop_file_ends_it(site, tmp_path: Path):
    stop = tmp_path / "stop"
    with running(site.url, gets=["/whoami"], clients=2, stop_file=stop) as load:
        stop.touch()
        assert load.wait(10) == 0
    assert load.report["seconds"] < 10


def test_a_load_that_sent_nothing_proves_nothing(site, tmp_path: Path):
    stop = tmp_path / "stop"
    stop.touch()
    done = command("--url", site.url, "--get", "/whoami", "--stop-file", str(stop), "--rate", "1")
    assert site.requests == 0
    assert done.returncode == 1


def test_a_load_ends_with_the_process_it_works_for(site):
    with (
        subprocess.Popen(["sleep", "60"]) as owner,
        running(site.url, gets=["/whoami"], clients=2, while_pid=owner.pid) as load,
    ):
        owner.kill()
        owner.wait()
        assert load.wait(10) == 0
    assert f"process {owner.pid}, for which it ran, has gone" in load.summary
    assert load.report["requests"] == site.requests


def test_a_process_of_somebody_else_is_there(monkeypatch):
    def kill(pid, number):
        raise PermissionError

    assert runs(os.getpid())
    monkeypatch.setattr(os, "kill", kill)
    assert runs(1)


def test_a_load_that_nobody_answers_gives_up(site):
    began = time.monotonic()
    done = command(
        "--url", site.url, "--get", "/slow", "--timeout", "0.3", "--rate", "20",
        "--give-up", "1.5", "--duration", "40",
    )  # fmt: skip
    assert done.returncode == 1
    assert "ended early: nothing was answered for 1.5 s" in done.stdout
    assert 1.5 <= time.monotonic() - began < 20


@pytest.mark.parametrize(("path", "seconds"), [("/broken", "1"), ("/slow", "0")])
def test_an_error_is_an_answer_and_none_is_waited_for_as_told(site, path, seconds):
    done = command(
        "--url", site.url, "--get", path, "--timeout", "0.3", "--rate", "20",
        "--give-up", seconds, "--duration", "3",
    )  # fmt: skip
    assert done.returncode == 1
    assert "ended early" not in done.stdout


def test_files_of_a_load_that_gave_up_are_missing(site):
    async def ended():
        load = Load(Options(urls=[site.url], gets=[], mix={"app": 1.0}))
        load.mix.files = {"one": f"{site.url}/slow"}
        load.abandon("nobody is there")
        await load._find_files(load.targets()[0])
        return load.report.missing

    assert asyncio.run(ended()) == ["one"]


def test_a_playbook_names_itself_to_its_load():
    """Its tasks are templated in children, and those end with them."""
    script = (
        "import multiprocessing, os\n"
        "from plugins.filter.load import playbook_pid\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    print(os.getpid(), playbook_pid(''), pool.apply(playbook_pid))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert len(set(said.split())) == 1


def test_connect_goes_to_the_address_and_keeps_the_name(site):
    port = site.url.rpartition(":")[2]
    done = command(
        "--url", f"http://www.example.com:{port}", "--connect", "127.0.0.1",
        "--get", "/whoami", "--count", "5",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.requests == 5


def mixed(site, mix, **options):
    options = {"duration": 3, "rate": 50, "clients": 100, **options}
    with running(site.url, sales_password="right", mix=mix, **options) as load:
        load.wait()
    return load.report


def test_a_mix_goes_on_at_its_rate_while_requests_hang(site, tmp_path: Path):
    samples = tmp_path / "samples"
    report = mixed(site, "job=1", timeout=1, samples=samples)
    assert report["held_back"] == 0
    assert 130 <= report["requests"] <= 160
    assert report["clients"] > 5
    assert report["failed"] == report["errors"]["timeout"] >= 10
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert lines[0]["run"] == report["run"]
    kinds = [kind for _, _, kind, _ in lines[1:]]
    assert (kinds.count("job"), kinds.count("login")) == (report["requests"] - 1, 1)
    assert sum(not good for _, _, _, good in lines[1:]) == report["failed"]


def test_what_a_mix_could_not_send_is_counted(site):
    report = mixed(site, "job=1", timeout=0.5, clients=1, duration=8)
    assert report["held_back"] > 10


def test_repeats_share_the_time_of_a_request(site):
    report = mixed(site, "job=1", timeout=1, retry_idempotent=1)
    assert report["latency"]["max"] < 1.5
    assert all(failure["seconds"] < 1.5 for failure in report["failures"])


def test_a_mix_finds_what_was_acknowledged(site):
    report = mixed(site, "write=1,sales=1")
    assert report["failed"] == 0
    assert {sale["item"] for sale in report["acknowledged"]} == set(site.sales)
    site.invented = 1
    report = mixed(site, "write=1,sales=1")
    assert report["failed"] == report["failed_by_kind"]["sales"] > 10
    assert "is there 2 times" in report["failures"][0]["error"]


def test_a_mix_keeps_files_and_finds_those_that_changed(site):
    report = mixed(site, "object=1,file=1", duration=2)
    assert report["failed"] == 0
    assert report["missing"] == []
    assert len(site.files) > 20
    site.spoilt = len(site.files) + 1
    report = mixed(site, "object=1,app=1", duration=2)
    assert report["missing"] == [str(site.spoilt)]
