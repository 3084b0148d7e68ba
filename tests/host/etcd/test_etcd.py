"""Three members that bootstrapped together."""

import json
import subprocess

import pytest

from tests.host.entry import converge

ALL = "http://10.87.18.11:2379,http://10.87.18.12:2379,http://10.87.18.13:2379"


@pytest.fixture
def address(host):
    return host.ansible.get_variables()["ansible_host"]


def etcdctl(host, arguments, endpoints=ALL):
    return host.check_output(f"etcdctl --endpoints={endpoints} {arguments}")


def test_the_three_are_one_healthy_cluster(host):
    members = json.loads(etcdctl(host, "member list -w json"))["members"]
    assert {member["name"] for member in members} == {"etcd1", "etcd2", "etcd3"}
    assert not any(member.get("isLearner") for member in members)
    etcdctl(host, "endpoint health")


def test_a_write_on_one_member_is_read_on_every_other(host, address):
    etcdctl(host, f"put from-{address} here", f"http://{address}:2379")
    for endpoint in ALL.split(","):
        assert "here" in etcdctl(host, f"get from-{address}", endpoint)


def test_the_packages_cluster_of_one_was_never_made(host):
    assert not host.file("/var/lib/etcd/default").exists
    assert host.file("/var/lib/etcd/evenkeel").mode == 0o700


def test_listens_on_no_other_address(host, address):
    listening = host.check_output("ss -Hltn 'sport = :2379 or sport = :2380'").splitlines()
    assert {line.split()[3] for line in listening} == {
        f"{address}:2379", f"{address}:2380", "127.0.0.1:2379"
    }  # fmt: skip


def test_no_second_cluster_begins_without_a_member_that_may_have_the_data(host):
    if host.ansible.get_variables()["inventory_hostname"] != "etcd1":
        pytest.skip("once is enough")
    data, lost = "/var/lib/etcd/evenkeel", ["etcd2", "etcd3"]

    def on_lost(command):
        for name in lost:
            subprocess.run(["podman", "exec", f"etcd-{name}", "sh", "-c", command], check=True)

    on_lost(f"systemctl stop etcd; mv {data} {data}.away")
    try:
        done = converge("etcd", {}, hosts=",".join(lost))
    finally:
        on_lost(f"systemctl stop etcd; rm -rf {data}; mv {data}.away {data}")
        on_lost("systemctl start --no-block etcd")
    assert done.returncode != 0
    assert "would begin without etcd1" in " ".join(done.stdout.split()), done.stdout
    host.check_output(
        f"timeout 60 sh -c 'until etcdctl --endpoints={ALL} endpoint health; do sleep 0.3; done'"
    )


def test_a_member_that_lost_its_data_while_it_ran_is_filled_from_the_others(host, address):
    """It refuses to start, every second, and makes its directory each time."""
    bootstrap = host.file("/etc/default/etcd-bootstrap").content_string
    name = host.ansible.get_variables()["inventory_hostname"]
    if name != "etcd3" or "STATE=new" not in bootstrap:
        return  # once is enough
    host.check_output("rm -rf /var/lib/etcd/evenkeel; systemctl kill --signal=KILL etcd")
    refused = "journalctl --unit etcd --lines 30 | grep -q 'already been bootstrapped'"
    host.check_output(f'timeout 60 sh -c "until {refused}; do sleep 0.3; done"')
    done = converge("etcd", {})
    assert done.returncode == 0, done.stdout
    members = json.loads(etcdctl(host, "member list -w json"))["members"]
    assert [member.get("isLearner", False) for member in members] == [False] * 3
    assert "here" in etcdctl(host, f"get from-{address}", f"http://{address}:2379")


def test_comes_back_after_kill(host, address):
    host.check_output("systemctl kill --signal=KILL etcd")
    host.check_output(
        "timeout 30 sh -c 'sleep 1.5; until etcdctl --command-timeout=1s "
        f"--endpoints=http://{address}:2379 endpoint health; do sleep 0.3; done'"
    )
