"""A planned switch while somebody writes without a pause: what was acknowledged is kept."""

import subprocess
import threading
import time

from tests.host.entry import call
from tests.host.members import cli, wait

ADDRESSES = ["10.87.22.11", "10.87.22.12", "10.87.22.13"]
testinfra_hosts = ["ansible://redis2"]

# Counts up in the primary that Sentinel names, and prints each number that was acknowledged.
WRITER = """
import sys, time
from redis import Redis
from redis.exceptions import RedisError
from redis.sentinel import Sentinel
options = {"password": "test-redis", "socket_timeout": 0.5}
sentinel = Sentinel([(a, 26379) for a in sys.argv[1:]], sentinel_kwargs=options, **options)
client = sentinel.master_for("evenkeel")
end, n = time.monotonic() + 25, 0
while time.monotonic() < end:
    n += 1
    try:
        client.set(f"counted-{n}", n)
        print(n, flush=True)
    except RedisError:
        client.connection_pool.disconnect()
        time.sleep(0.02)
"""


def primary(host):
    ask = "SENTINEL get-master-addr-by-name evenkeel"
    return cli(host, ADDRESSES[0], ask, port=26379)[0]


def whole(host):
    known = cli(host, ADDRESSES[0], "SENTINEL CKQUORUM evenkeel", port=26379)
    if known[:2] != ["OK", "3"]:  # or nothing: it begins only
        return False
    return "connected_slaves:2" in cli(host, primary(host), "INFO replication")


def test_a_check_says_who_could_take_over_and_changes_nothing(host):
    wait(lambda: whole(host))
    led = primary(host)
    done = call("redis-three", "switchover", "--check")
    assert done.returncode == 0, done.stdout
    assert f"{led} would hand over to" in done.stdout
    assert primary(host) == led


def test_a_switch_loses_nothing_that_was_acknowledged(host):
    wait(lambda: whole(host))
    led, written = primary(host), []

    def write():
        address = " ".join(ADDRESSES)
        written.extend(int(n) for n in host.run(
            f"python3 - {address} <<'END'\n{WRITER}\nEND").stdout.split())  # fmt: skip

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(3)
    done = call("redis-three", "switchover")
    assert done.returncode == 0, done.stdout
    writer.join()
    now = primary(host)
    assert now != led
    assert len(written) > 1000
    found = 0
    for start in range(0, len(written), 1000):  # a command line has 128 KiB
        some = " ".join(f"counted-{n}" for n in written[start : start + 1000])
        found += int(*cli(host, now, f"EXISTS {some}"))
    assert found == len(written), "acknowledged and lost"
    wait(lambda: whole(host))


def control(address, *arguments):
    """Send the Redis of a member a signal, or start or stop it."""
    container = ["podman", "exec", f"redis-three-redis{address[-1]}"]
    subprocess.run([*container, "systemctl", *arguments, "redis-server"], check=True)


def test_a_switch_waits_for_replicas_that_come_back(host):
    wait(lambda: whole(host))
    led = primary(host)
    others = [address for address in ADDRESSES if address != led]
    for address in others:
        control(address, "kill", "--signal=STOP")
    thawed = [threading.Timer(10, control, (a, "kill", "--signal=CONT")) for a in others]
    for timer in thawed:
        timer.start()
    time.sleep(4)  # neither Redis nor Sentinel can count on them now
    done = call("redis-three", "switchover")
    for timer in thawed:
        timer.join()
    assert done.returncode == 0, done.stdout
    assert primary(host) != led
    wait(lambda: whole(host))


def test_a_switch_of_a_frozen_primary_is_refused(host):
    wait(lambda: whole(host))
    led = primary(host)
    after = "SENTINEL SET evenkeel down-after-milliseconds"
    for address in ADDRESSES:  # they would replace it, else
        cli(host, address, f"{after} 120000", port=26379)
    control(led, "kill", "--signal=STOP")
    try:
        done = call("redis-three", "switchover")
        assert done.returncode != 0
        assert f"{led} is the primary, and its Redis does not answer" in done.stdout, done.stdout
    finally:
        control(led, "kill", "--signal=CONT")
        for address in ADDRESSES:
            cli(host, address, f"{after} 3000", port=26379)
    wait(lambda: whole(host))
    assert primary(host) == led


def test_a_switch_without_a_replica_in_step_is_refused(host):
    wait(lambda: whole(host))
    led = primary(host)
    others = [f"redis-three-redis{a[-1]}" for a in ADDRESSES if a != led]
    for name in others:
        subprocess.run(["podman", "exec", name, "systemctl", "stop", "redis-server"], check=True)
    try:
        wait(lambda: "connected_slaves:0" in cli(host, led, "INFO replication"))
        done = call("redis-three", "switchover")
        assert done.returncode != 0
        assert "no replica is in step" in done.stdout, done.stdout
    finally:
        for name in others:
            start = ["podman", "exec", name, "systemctl", "start", "redis-server"]
            subprocess.run(start, check=True)
    wait(lambda: whole(host))
    assert primary(host) == led


def test_a_switch_while_a_replica_stays_behind_is_refused(host):
    wait(lambda: whole(host))
    led = primary(host)
    behind = next(address for address in ADDRESSES if address != led)
    # It answers the Sentinels, which might choose it, and gets no writes any more.
    cli(host, behind, "CONFIG SET masterauth wrong", "CLIENT KILL TYPE master")
    try:
        wait(lambda: "connected_slaves:1" in cli(host, led, "INFO replication"))
        cli(host, led, "SET written-meanwhile 1")
        done = call("redis-three", "switchover")
        assert done.returncode != 0
        assert f"{behind} did not have every write" in done.stdout, done.stdout
    finally:
        cli(host, behind, "CONFIG SET masterauth test-redis")
    wait(lambda: whole(host))
    assert primary(host) == led
