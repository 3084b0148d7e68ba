"""A tier that grew from one member, with data in it, to three."""

import subprocess
import time

import pytest

from tests.host.members import cli

ADDRESSES = ["10.87.22.11", "10.87.22.12", "10.87.22.13"]


def primary_seen_by(host, address):
    ask = "SENTINEL get-master-addr-by-name evenkeel"
    return next(iter(cli(host, address, ask, port=26379)), None)


@pytest.fixture
def primary(host):
    return primary_seen_by(host, host.ansible.get_variables()["ansible_host"])


def test_every_sentinel_names_the_same_primary(host, primary):
    assert {primary_seen_by(host, address) for address in ADDRESSES} == {primary}
    assert cli(host, primary, "SENTINEL CKQUORUM evenkeel", port=26379)[:2] == ["OK", "3"]


def test_sentinel_needs_two_of_three(host):
    mine = host.ansible.get_variables()["ansible_host"]
    state = cli(host, mine, "SENTINEL MASTER evenkeel", port=26379)
    assert state[state.index("quorum") + 1] == "2"
    assert state[state.index("num-slaves") + 1] == "2"


def test_has_the_data_from_before_the_growth(host):
    mine = host.ansible.get_variables()["ansible_host"]
    assert cli(host, mine, "GET before-growth") == ["42"]


def test_one_is_primary_and_the_others_refuse_writes(host, primary):
    mine = host.ansible.get_variables()["ansible_host"]
    expected = "OK" if mine == primary else "READONLY"
    assert cli(host, mine, "SET who wrote")[0] == expected


def test_a_primary_asks_for_a_replica_wherever_it_is(host):
    mine = host.ansible.get_variables()["ansible_host"]
    assert cli(host, mine, "CONFIG GET min-replicas-to-write")[-1] == "1"


def test_writes_that_waited_survive_the_loss_of_the_primary(host, primary):
    if host.ansible.get_variables()["inventory_hostname"] != "redis3":
        pytest.skip("once is enough, and last, for it moves the primary")
    for n in range(20):
        assert int(cli(host, primary, f"SET kept-{n} {n}", "WAIT 1 2000")[-1]) >= 1
    container = f"redis-three-redis{primary[-1]}"
    helper = next(a for a in ADDRESSES if a != primary)
    runner = ["podman", "exec", "-i", f"redis-three-redis{helper[-1]}", "redis-cli", "-t", "2"]

    def ask(address, command, port="6379"):
        return subprocess.run(
            [*runner, "-h", address, "-p", port], input=f"AUTH test-redis\n{command}\n",
            capture_output=True, text=True, check=False,
        ).stdout.removeprefix("OK").split()  # fmt: skip

    subprocess.run(["podman", "kill", container], check=True, capture_output=True)
    try:
        deadline = time.monotonic() + 20
        while True:
            found = ask(helper, "SENTINEL get-master-addr-by-name evenkeel", "26379")[:1]
            if found not in ([], [primary]) and ask(found[0], "SET after failover") == ["OK"]:
                break
            assert time.monotonic() < deadline, "no new primary that accepts writes within 20 s"
            time.sleep(0.3)
        assert [ask(found[0], f"GET kept-{n}") for n in range(20)] == [[str(n)] for n in range(20)]
    finally:
        subprocess.run(["podman", "start", container], check=True, capture_output=True)
