"""A member whose disk is empty gets back all that belongs there; one that leaves gives all away."""

import json

import boto3
from botocore.config import Config

from tests.host.entry import call

SCENARIO, BUCKET = "swift-three", "shop-uploads"
MEMBERS = [{"name": f"storage{n}", "address": f"10.87.24.1{n}"} for n in (1, 2, 3)]
testinfra_hosts = ["ansible://storage2"]


def store():
    return boto3.client(
        "s3", endpoint_url="http://10.87.24.11:8080", region_name="us-east-1",
        aws_access_key_id="shop:app", aws_secret_access_key="shop-test-key",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )  # fmt: skip


def objects(host):
    names = host.check_output("cd /srv/swift/d1 && find objects -name '*.data' | sort")
    return set(names.split())


def test_an_empty_disk_is_filled_when_heal_returns(host):
    for number in range(30):
        store().put_object(Bucket=BUCKET, Key=f"kept-{number}", Body=b"x" * 1000)
    done = call(SCENARIO, "heal", hosts="storage1,storage3")
    assert done.returncode == 0, done.stdout + done.stderr
    had = objects(host)
    assert len(had) >= 30
    host.check_output("systemctl stop swift.target && rm -rf /srv/swift/d1")
    for number in range(30):
        body = store().get_object(Bucket=BUCKET, Key=f"kept-{number}")["Body"].read()
        assert body == b"x" * 1000
    host.check_output("install -d -o swift -g swift -m 750 /srv/swift/d1")
    host.check_output("systemctl start swift.target")
    done = call(SCENARIO, "heal", hosts="storage1,storage3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert objects(host) >= had


def test_a_member_that_leaves_is_empty_when_told_and_comes_back(host):
    for number in range(30):
        store().put_object(Bucket=BUCKET, Key=f"given-{number}", Body=b"y" * 1000)
    assert objects(host)
    members = [MEMBERS[0], {**MEMBERS[1], "leaving": True}, MEMBERS[2]]
    told = json.dumps({"swift_members": members, "swift_heal_timeout": 200})
    for entry, hosts in (("resize", "all"), ("empty", "storage2")):
        done = call(SCENARIO, entry, "-e", told, hosts=hosts)
        assert done.returncode == 0, done.stdout + done.stderr
    assert objects(host) == set()
    for number in range(30):
        body = store().get_object(Bucket=BUCKET, Key=f"given-{number}")["Body"].read()
        assert body == b"y" * 1000
    # Nothing moves for an hour after the last move, but a third copy is a new one.
    done = call(SCENARIO, "resize")
    assert done.returncode == 0, done.stdout + done.stderr
    done = call(SCENARIO, "heal", hosts="storage1,storage3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(objects(host)) >= 30
