import hashlib
import time

import boto3
import pytest
from botocore.config import Config

BUCKET = "shop-uploads"
MEMBERS = ["10.87.24.11", "10.87.24.12", "10.87.24.13"]


def s3(address):
    return boto3.client(
        "s3",
        endpoint_url=f"http://{address}:8080",
        aws_access_key_id="shop:app",
        aws_secret_access_key="shop-test-key",
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=3,
            read_timeout=15,
            retries={"total_max_attempts": 1},
        ),
    )


# One after the other: the store must be whole again between two losses.
testinfra_hosts = ["ansible://storage2", "ansible://storage3"]


def wait(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(2)


def copies(host):
    return set(
        host.check_output(
            "find /srv/swift/d1/objects -name '*.data' | xargs -r sha256sum | cut -c-64"
        ).split()
    )


@pytest.fixture
def address(host):
    return host.ansible.get_variables()["ansible_host"]


@pytest.fixture
def lost(host, address):
    """Kill the store on this host, and bring it back."""
    host.check_output("systemctl kill -s KILL 'swift-*.service'; systemctl stop swift.target nginx")
    yield
    host.check_output("systemctl start swift.target nginx")
    for port in (6200, 6201, 6202):
        wait(lambda port=port: host.socket(f"tcp://{address}:{port}").is_listening)


def test_writes_and_reads_go_on_without_a_member(lost, address):
    others = [member for member in MEMBERS if member != address]
    for number in range(10):
        for turn, member in enumerate(others):
            where = {"Bucket": BUCKET, "Key": f"without-{address}-{number}-{turn}"}
            body = f"{where['Key']}".encode()
            s3(member).put_object(Body=body, **where)
            assert s3(others[turn - 1]).get_object(**where)["Body"].read() == body


def test_a_member_that_returns_gets_what_it_missed(host, address):
    wanted = {
        hashlib.sha256(f"without-{address}-{number}-{turn}".encode()).hexdigest()
        for number in range(10)
        for turn in range(2)
    }
    wait(lambda: wanted <= copies(host))
