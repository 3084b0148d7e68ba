"""A replica that is lost for good is forgotten, and known again when it returns."""

import json
import subprocess
import time

from tests.host.entry import call
from tests.host.members import cli, wait

MEMBERS = [{"name": f"redis{n}", "address": f"10.87.22.1{n}"} for n in (1, 2, 3)]
testinfra_hosts = ["ansible://redis2"]


def known(host, member):
    """How many replicas and other Sentinels the Sentinel of a member knows."""
    state = cli(host, member["address"], "SENTINEL MASTER evenkeel", port=26379)
    return [state[state.index(of) + 1] for of in ("num-slaves", "num-other-sentinels")]


def test_a_lost_replica_is_forgotten_when_the_primary_has_forgotten_it(host):
    wait(lambda: all(known(host, member) == ["2", "2"] for member in MEMBERS))
    ask = "SENTINEL get-master-addr-by-name evenkeel"
    primary = cli(host, MEMBERS[0]["address"], ask, port=26379)[0]
    lost = next(m for m in MEMBERS if m["address"] != primary and m["name"] != "redis2")
    stay = [member for member in MEMBERS if member != lost]

    def control(*arguments):
        container = ["podman", "exec", f"redis-three-{lost['name']}"]
        subprocess.run([*container, "systemctl", *arguments], check=True)

    # Frozen, so that its connection stays open, as that of a lost host does.
    control("stop", "redis-sentinel")
    control("kill", "--signal=STOP", "redis-server")
    try:
        for member in stay:
            done = call("redis-three", "forget", "-e", json.dumps({"redis_members": stay}),
                        hosts=member["name"])  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(12)  # Sentinel asks the primary every 10 s
        assert [known(host, member) for member in stay] == [["1", "1"], ["1", "1"]]
    finally:
        control("kill", "--signal=CONT", "redis-server")
        control("start", "redis-sentinel")
    wait(lambda: all(known(host, member) == ["2", "2"] for member in MEMBERS), 90)
