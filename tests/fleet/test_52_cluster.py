"""Workers that die all the time, and workers that come and go, behind the balancer."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from plugins.load import running
from tests.fleet.support import eventually

# Kills each worker at a random moment within ten seconds of its start, for so many seconds.
REAPER = """
import os, random, signal, sys, time
pid, end, due = sys.argv[1], time.monotonic() + float(sys.argv[2]), {}
crashes = 0
while (now := time.monotonic()) < end:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        workers = {int(worker) for worker in children.read().split()}
    due = {w: due.get(w, now + random.uniform(0, 10)) for w in workers}
    for worker in [w for w, when in due.items() if when < now]:
        os.kill(worker, signal.SIGKILL)
        crashes += 1
        del due[worker]
    time.sleep(0.02)
print(crashes)
"""


@pytest.fixture
def master(fleet):
    release = next(iter(fleet.releases().values()))
    return lambda host: fleet.ssh(host, f"systemctl show -p MainPID --value 'refapp-web@{release}'")


def workers(fleet, host, master):
    return set(fleet.ssh(host, f"pgrep -P {master(host)}").split())


def test_workers_that_die_all_the_time_fail_one_get_in_a_thousand_at_most(fleet, master):
    hosts = fleet.groups["app"]

    def reap(host):
        command = f"python3 - {master(host)} 12"
        return int(fleet.ssh(host, command, timeout=40, input=REAPER))

    with ThreadPoolExecutor(len(hosts)) as pool:
        crashes = [pool.submit(reap, host) for host in hosts]
        time.sleep(1)
        with running(fleet.url, ca=fleet.ca, gets=["/whoami"], clients=200, rate=0,
                     duration=10) as load:  # fmt: skip
            load.wait(40)
        killed = sum(crash.result() for crash in crashes)
    report = load.report
    print(f"{killed} crashes: {report['failed']} of {report['requests']} failed")
    assert killed >= 2 * len(hosts)
    assert report["requests"] > 1000
    assert report["failed"] <= report["requests"] / 1000, load.summary
    fleet.wait_all_answer()


def test_live_scaling(fleet, master):
    host = fleet.groups["app"][0]
    pid, before = master(host), workers(fleet, host, master)

    def order(command):
        fleet.ssh(
            host,
            f"/srv/refapp/current/env/bin/gunicornc -c '{command}'"
            " -s /run/refapp-web-*/gunicorn-web-*.ctl",
        )

    with fleet.load():
        for command, change in (("worker add 2", 2), ("worker remove 2", 0)):
            order(command)
            wanted = len(before) + change
            eventually(lambda n=wanted: len(workers(fleet, host, master)) == n, 40)
    assert master(host) == pid, "nothing was restarted"


def test_nobody_can_crash_production(fleet):
    with fleet.session() as session:
        assert session.post(f"{fleet.url}/crash", timeout=10).status_code == 404
