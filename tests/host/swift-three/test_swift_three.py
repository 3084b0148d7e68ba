import boto3
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


rings_of_the_first = {}


def address_of(host):
    return host.ansible.get_variables()["ansible_host"]


def test_members_hold_the_same_rings(host):
    for ring in ("account", "container", "object"):
        checksum = host.check_output(f"sha256sum < /etc/swift/{ring}.ring.gz")
        assert rings_of_the_first.setdefault(ring, checksum) == checksum
        devices = host.check_output(f"swift-ring-builder /etc/swift/{ring}.builder")
        assert "3.000000 replicas" in devices
        assert "3 zones" in devices


def test_what_one_member_stores_every_member_serves(host):
    mine = address_of(host)
    s3(mine).put_object(Bucket=BUCKET, Key=f"from-{mine}", Body=mine.encode())
    for member in MEMBERS:
        got = s3(member).get_object(Bucket=BUCKET, Key=f"from-{mine}")
        assert got["Body"].read() == mine.encode()


def test_inner_ports_are_not_on_every_address(host):
    listening = host.check_output("ss -ltnH")
    for port in (6200, 6201, 6202, 873, 11211, 8080):
        assert f"{address_of(host)}:{port} " in listening
        assert f"0.0.0.0:{port} " not in listening
