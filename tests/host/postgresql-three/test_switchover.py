"""The verbs of a tier of three: handed over, refused, a setting rolled, a member restarted."""

import json
import subprocess

import pytest

from tests.host.entry import call, converge
from tests.host.members import wait

# Once is enough, and on no particular host.
testinfra_hosts = ["ansible://db3"]


def cluster(host):
    address = host.ansible.get_variables()["ansible_host"]
    members = json.loads(host.check_output(f"curl -fsS http://{address}:8008/cluster"))["members"]
    return {member["name"]: member["role"] for member in members}


def leader(host):
    return next((name for name, role in cluster(host).items() if role == "leader"), None)


def in_step(host):
    return sorted(cluster(host).values()) == ["leader", "quorum_standby", "quorum_standby"]


@pytest.fixture(autouse=True)
def whole(host):
    wait(lambda: in_step(host))


def test_a_check_of_a_switchover_changes_nothing(host):
    led = leader(host)
    done = call("postgresql-three", "switchover", "--check")
    assert done.returncode == 0, done.stdout
    assert f"{led} would hand over to" in done.stdout
    assert leader(host) == led


def test_a_switchover_goes_where_it_is_told_to(host):
    heir = "db2" if leader(host) == "db1" else "db1"
    done = call("postgresql-three", "switchover", "-e", f"postgresql_successor={heir}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert leader(host) == heir
    again = call("postgresql-three", "switchover", "-e", f"postgresql_successor={heir}")
    assert again.returncode == 0, again.stdout
    assert leader(host) == heir, "there was nothing to do"


def test_a_setting_that_all_share_is_taken_and_restarted_for_member_after_member(host):
    led, wanted = leader(host), {"track_commit_timestamp": "on"}
    for name in sorted(cluster(host), key=lambda name: (name == led, name)):
        done = converge("postgresql-three", {"postgresql_parameters": wanted}, hosts=name)
        assert done.returncode == 0, done.stdout + done.stderr
        wait(lambda: in_step(host))
        show = ["psql", "-XAtq", "-U", "postgres", "-c", "SHOW track_commit_timestamp"]
        said = subprocess.run(["podman", "exec", f"postgresql-three-{name}", *show],
                              check=True, capture_output=True, text=True)  # fmt: skip
        assert said.stdout.strip() == "on", name
    assert leader(host) != led, "who led handed over before its restart"


def etcd_of_leader(host):
    """The etcd beside PostgreSQL's leader: how it is reached, what it is, who leads it."""
    address = f"http://10.87.20.1{leader(host)[-1]}:2379"
    said = host.check_output(f"etcdctl --endpoints={address} endpoint status -w json")
    status = json.loads(said)[0]["Status"]
    return address, status["header"]["member_id"], status["leader"]


def apart(host):
    _, member, leads = etcd_of_leader(host)
    return member != leads


def test_etcd_is_led_from_another_member_than_postgresql(host):
    wait(lambda: apart(host), 20)


def test_etcd_that_elects_the_wrong_member_is_led_from_another_in_two_minutes(host):
    wait(lambda: apart(host), 20)
    _, member, leads = etcd_of_leader(host)
    endpoints = ",".join(f"http://10.87.20.1{n}:2379" for n in (1, 2, 3))
    said = json.loads(host.check_output(f"etcdctl --endpoints={endpoints} endpoint status -w json"))
    asked = next(s["Endpoint"] for s in said if s["Status"]["header"]["member_id"] == leads)
    host.check_output(f"etcdctl --endpoints={asked} move-leader {member:x}")
    wait(lambda: apart(host), 120)


def test_a_switchover_with_no_standby_in_step_is_refused(host):
    led = leader(host)
    others = [f"postgresql-three-db{n}" for n in (1, 2, 3) if f"db{n}" != led]
    lost = next(name for name in others if not name.endswith("db3"))
    subprocess.run(["podman", "exec", lost, "systemctl", "stop", "patroni"], check=True)
    try:
        name = lost.removeprefix("postgresql-three-")
        wait(lambda: cluster(host).get(name) != "quorum_standby")
        done = call("postgresql-three", "switchover", "-e", f"postgresql_successor={name}")
        assert done.returncode != 0
        assert f"{name} is not in step" in done.stdout, done.stdout
        assert leader(host) == led
    finally:
        subprocess.run(["podman", "exec", lost, "systemctl", "start", "patroni"], check=True)
