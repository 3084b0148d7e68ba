"""A tier that grew from one member, with data in it, to three."""

import json
import subprocess
import time

import psycopg
import pytest

ADDRESSES = ["10.87.20.11", "10.87.20.12", "10.87.20.13"]


def connect(hosts, attributes="read-write"):
    return psycopg.connect(
        host=",".join(hosts), user="shop", password="test: shop's", dbname="shop",
        connect_timeout=2, target_session_attrs=attributes, autocommit=True,
    )  # fmt: skip


def cluster(host):
    address = host.ansible.get_variables()["ansible_host"]
    members = json.loads(host.check_output(f"curl -fsS http://{address}:8008/cluster"))["members"]
    return {member["name"]: member for member in members}


@pytest.fixture
def leader(host):
    return next(name for name, m in cluster(host).items() if m["role"] == "leader")


def test_etcd_grew_to_three_voters(host):
    members = json.loads(host.check_output("etcdctl member list -w json"))["members"]
    assert {m["name"] for m in members if not m.get("isLearner")} == {"db1", "db2", "db3"}


def test_one_leads_and_two_stream_in_a_quorum(host):
    members = cluster(host)
    roles = sorted(m["role"] for m in members.values())
    assert roles == ["leader", "quorum_standby", "quorum_standby"]
    assert all(m["state"] == "streaming" for m in members.values() if m["role"] != "leader")
    with connect(ADDRESSES) as db:
        names = db.execute("SELECT setting FROM pg_settings WHERE name = "
                           "'synchronous_standby_names'").fetchone()[0]  # fmt: skip
        assert names.startswith("ANY 1")


def test_what_was_written_before_the_growth_is_on_every_member(host):
    query = 'psql -XAtq -U postgres shop -c "SELECT answer FROM before_growth"'
    assert host.check_output(query) == "42"


def test_a_standby_refuses_writes_and_gets_acknowledged_rows(host, leader):
    name = host.ansible.get_variables()["inventory_hostname"]
    if name == leader:
        with connect(ADDRESSES) as db:
            assert db.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        return
    with connect(ADDRESSES) as db:
        db.execute("CREATE TABLE IF NOT EXISTS acknowledged (who text)")
        db.execute("INSERT INTO acknowledged VALUES (%s)", (name,))
    mine = [host.ansible.get_variables()["ansible_host"]]
    with connect(mine, "any") as db:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            db.execute("INSERT INTO acknowledged VALUES ('standby')")
        deadline = time.monotonic() + 5
        while (name,) not in db.execute("SELECT who FROM acknowledged").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_pages_are_checksummed_on_the_copies_too(host):
    assert host.check_output('psql -XAtq -U postgres -c "SHOW data_checksums"') == "on"


def test_an_acknowledged_row_survives_the_loss_of_the_leader(host, leader):
    if host.ansible.get_variables()["inventory_hostname"] != "db3":
        pytest.skip("once is enough, and last, for it moves the leader")
    with connect(ADDRESSES) as db:
        db.execute("CREATE TABLE survives AS SELECT 7 AS n")
    container = f"postgresql-three-{leader}"
    subprocess.run(["podman", "kill", container], check=True, capture_output=True)
    try:
        others = [f"10.87.20.1{n}" for n in (1, 2, 3) if leader != f"db{n}"]
        deadline = time.monotonic() + 45
        while True:
            try:
                with connect(others) as db:
                    assert db.execute("SELECT n FROM survives").fetchall() == [(7,)]
                    break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "no new leader within 45 s"
                time.sleep(0.3)
    finally:
        subprocess.run(["podman", "start", container], check=True, capture_output=True)
