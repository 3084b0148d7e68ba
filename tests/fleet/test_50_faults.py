"""What dies under load: no GET fails and no POST with a key, and none is applied twice."""

import itertools
import re
import threading
import time
from contextlib import contextmanager

import pytest

from tests.fleet.changes import holder
from tests.fleet.support import eventually, play, podman

BEFORE, AFTER = 2, 6  # seconds of load on each side of a fault


@pytest.fixture(scope="module")
def release(fleet):
    return next(iter(fleet.releases().values()))


@contextmanager
def fault_under_load(fleet):
    """The load of the acceptance tests with keys only: a POST without one can't be repeated."""
    with fleet.load(unkeyed=0) as load:
        time.sleep(BEFORE)
        yield load
        time.sleep(AFTER)


def master(fleet, host, release):
    return fleet.ssh(host, f"systemctl show -p MainPID --value 'refapp-web@{release}'")


def workers(fleet, host, release):
    return set(fleet.ssh(host, f"pgrep -P {master(fleet, host, release)}").split())


def test_kill_of_a_worker(fleet, release):
    host = fleet.groups["app"][0]
    before = workers(fleet, host, release)
    victim = min(before)
    with fault_under_load(fleet) as load:
        fleet.ssh(host, f"kill -9 {victim}")
        eventually(lambda: len(workers(fleet, host, release)) == len(before), 10)
    assert victim not in workers(fleet, host, release)
    assert load.report["hosts"].keys() == set(fleet.groups["app"])


def test_kill_of_the_master(fleet, release):
    host = fleet.groups["app"][1]
    before = master(fleet, host, release)
    with fault_under_load(fleet):
        fleet.ssh(host, f"kill -9 {before}")
        eventually(lambda: master(fleet, host, release) not in ("0", before), 15)
        fleet.wait_all_answer(30)


def test_kill_of_every_process_of_one_host(fleet, release):
    """Worse than the master alone: nobody is left to answer on the socket."""
    host = fleet.groups["app"][1]
    with fault_under_load(fleet):
        fleet.ssh(host, f"systemctl kill --kill-whom=all -s KILL 'refapp-web@{release}'")
        fleet.wait_all_answer(30)


@pytest.mark.parametrize(("fault", "undo"), [("stop", "start"), ("pause", "unpause")])
def test_loss_of_an_app_host(fleet, fault, undo):
    host = fleet.groups["app"][-1]
    with fault_under_load(fleet) as load:
        try:
            podman(fault, host)
            time.sleep(8)
            if fault == "stop":
                status = play("status.yml", code=2)
                assert re.search(rf"Unwell: .*\b{host}\b", status.output)
            hosts, _ = fleet.answering(12)
            assert host not in hosts
        finally:
            podman(undo, host)
        fleet.wait_all_answer(60)
    # A request that a frozen host holds costs the balancer's read timeout, and no more.
    assert load.report["latency"]["max"] < 8, load.summary


class Poller:
    """Asks for /whoami on new connections all the time, and notes when it was answered."""

    def __init__(self, fleet):
        self.fleet, self.answers, self._stop = fleet, [], threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._stop.wait(0.05):
            try:
                if self.fleet.get("/whoami", timeout=0.5).status_code == 200:
                    self.answers.append(time.monotonic())
            except OSError:  # what requests raises is one too
                continue

    def longest_gap(self, begin):
        """Longest time without an answer since `begin`."""
        times = sorted([begin, *(t for t in self.answers if t > begin)])
        return max(
            (later - earlier for earlier, later in itertools.pairwise(times)),
            default=float("inf"),
        )


def take_over(fleet, fail, undo):
    """Let the balancer with the address fail; return the seconds without an answer."""
    first = holder(fleet)
    assert first, "no balancer has the virtual IP"
    try:
        with Poller(fleet) as poller:
            time.sleep(1)
            assert poller.answers, "the site did not answer before the fault"
            began = time.monotonic()
            fail(first)
            eventually(lambda: poller.answers[-1] > began + 3, 20)
            time.sleep(3)
            gap = poller.longest_gap(began)
        others = [host for host in fleet.groups["lb"] if host != first]
        assert any(f" {fleet.url.removeprefix('https://')}/" in
                   fleet.ssh(host, "ip -4 -o address show") for host in others)  # fmt: skip
    finally:
        undo(first)
    eventually(lambda: fleet.ssh(first, "systemctl is-active nginx keepalived") and holder(fleet))
    eventually(lambda: fleet.get("/whoami", timeout=2).status_code == 200, 20)
    return gap


def test_loss_of_the_balancer_with_the_address(fleet):
    gap = take_over(fleet, lambda host: podman("stop", host), lambda host: podman("start", host))
    assert gap < 5


def test_loss_of_nginx_on_the_balancer_with_the_address(fleet):
    gap = take_over(
        fleet,
        lambda host: fleet.ssh(host, "systemctl kill -s KILL --kill-whom=all nginx; "
                                     "systemctl stop nginx"),
        lambda host: fleet.ssh(host, "systemctl start nginx"),
    )  # fmt: skip
    assert gap < 5


def test_loss_of_the_cache_host(fleet):
    host = fleet.groups["cache"][0]
    with fault_under_load(fleet):
        try:
            podman("stop", host)
            time.sleep(3)
            assert fleet.get("/sales/total?item=item-2").status_code == 200
        finally:
            podman("start", host)
        eventually(lambda: fleet.get("/sales/total?item=item-2").headers.get("X-Cache"), 30)


def test_everything_is_back(fleet):
    fleet.wait_all_answer()
    for host in fleet.hosts:
        eventually(lambda h=host: fleet.ssh(h, "systemctl is-system-running || true") == "running")
