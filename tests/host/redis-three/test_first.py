"""A member that comes alone, and whom no Sentinel answers, begins no second tier."""

import subprocess
import time

from tests.host.entry import converge

testinfra_hosts = ["ansible://redis1"]
STATE = "/var/lib/redis/state.conf"


def control(number, command):
    container = ["podman", "exec", f"redis-three-redis{number}", "sh", "-c", command]
    subprocess.run(container, check=True)


def quorum(host):
    ask = "AUTH test-redis\nSENTINEL CKQUORUM evenkeel"
    return "OK 3" in host.run(f"redis-cli -h 10.87.22.11 -p 26379 <<'END'\n{ask}\nEND").stdout


def test_no_second_tier_begins_without_the_members_that_may_have_the_data(host):
    for number in (2, 3):
        control(number, "systemctl stop redis-sentinel")
    control(1, f"mv {STATE} {STATE}.away")
    try:
        done = converge("redis-three", {}, hosts="redis1")
        made = host.file(STATE).exists
    finally:
        control(1, f"mv {STATE}.away {STATE}")
        for number in (2, 3):
            control(number, "systemctl start redis-sentinel")
    assert done.returncode != 0
    assert "would begin without redis2, redis3" in " ".join(done.stdout.split()), done.stdout
    assert not made
    deadline = time.monotonic() + 60
    while not quorum(host):
        assert time.monotonic() < deadline, "the Sentinels have no quorum again"
        time.sleep(0.5)
