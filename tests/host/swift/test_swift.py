import io
import re

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET = "shop-uploads"


def s3(address, access="shop:app", secret="shop-test-key", **config):
    return boto3.client(
        "s3",
        endpoint_url=f"http://{address}:8080",
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            connect_timeout=3,
            read_timeout=30,
            retries={"total_max_attempts": 1},
            **config,
        ),
    )


def refusal(call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture
def address(host):
    return host.ansible.get_variables()["ansible_host"]


@pytest.fixture
def store(address):
    return s3(address)


@pytest.fixture
def empty_bucket(store):
    store.create_bucket(Bucket="shop-empty")
    yield "shop-empty"
    store.delete_bucket(Bucket="shop-empty")


def test_puts_gets_ranges_lists_and_deletes(store):
    store.put_object(Bucket=BUCKET, Key="a/b ü.txt", Body=b"0123456789", Metadata={"x_y": "z"})
    whole = store.get_object(Bucket=BUCKET, Key="a/b ü.txt")
    assert (whole["Body"].read(), whole["Metadata"]) == (b"0123456789", {"x_y": "z"})
    part = store.get_object(Bucket=BUCKET, Key="a/b ü.txt", Range="bytes=2-4")
    assert part["Body"].read() == b"234"
    listed = store.list_objects_v2(Bucket=BUCKET, Prefix="a/")
    assert [item["Key"] for item in listed["Contents"]] == ["a/b ü.txt"]
    store.delete_object(Bucket=BUCKET, Key="a/b ü.txt")
    assert refusal(store.get_object, Bucket=BUCKET, Key="a/b ü.txt") == 404


# The published check values of b"123456789".
CHECKSUMS = {
    "CRC32": "y/Q5Jg==",
    "CRC32C": "4waSgw==",
    "CRC64NVME": "rosUhgp5mIg=",
    "SHA256": "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
}


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_verifies_checksums(store, algorithm):
    put = {"Bucket": BUCKET, "Key": "sum", f"Checksum{algorithm}": CHECKSUMS[algorithm]}
    store.put_object(Body=b"123456789", **put)
    assert refusal(store.put_object, Body=b"123456780", **put) == 400
    assert store.get_object(Bucket=BUCKET, Key="sum")["Body"].read() == b"123456789"
    store.delete_object(Bucket=BUCKET, Key="sum")


def test_joins_a_multipart_upload(store):
    body = b"x" * (9 << 20)  # above boto3's threshold of 8 MiB
    store.upload_fileobj(io.BytesIO(body), BUCKET, "big")
    head = store.head_object(Bucket=BUCKET, Key="big")
    assert head["ContentLength"] == len(body)
    assert head["ETag"].strip('"').endswith("-2")
    tail = store.get_object(Bucket=BUCKET, Key="big", Range="bytes=-3")
    assert tail["Body"].read() == b"xxx"
    store.delete_object(Bucket=BUCKET, Key="big")


def test_presigned_urls_need_no_client(store):
    where = {"Bucket": BUCKET, "Key": "signed"}
    put = store.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
    assert requests.put(put, data=b"hello", timeout=10).status_code == 200
    get = store.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
    assert requests.get(get, timeout=10).content == b"hello"
    assert requests.get(get.replace("/signed?", "/other?"), timeout=10).status_code == 403
    assert requests.put(get, data=b"overwritten", timeout=10).status_code == 403
    store.delete_object(**where)


def test_refuses_a_wrong_key(address):
    assert refusal(s3(address, secret="wrong").list_buckets) == 403
    assert refusal(s3(address, access="shop:nobody").list_buckets) == 403


def test_refuses_another_account(address, store):
    store.put_object(Bucket=BUCKET, Key="private", Body=b"private")
    other = s3(address, access="other_team:ci_bot", secret="other-test-key")
    assert other.list_buckets()["Buckets"] == []
    assert refusal(other.get_object, Bucket=BUCKET, Key="private") in (403, 404)
    store.delete_object(Bucket=BUCKET, Key="private")


def test_refuses_anonymous_access(address, store):
    store.put_object(Bucket=BUCKET, Key="private", Body=b"private")
    for path in (BUCKET, f"{BUCKET}/private", f"v1/AUTH_shop/{BUCKET}/private", "auth/v1.0"):
        answer = requests.get(f"http://{address}:8080/{path}", timeout=10)
        assert answer.status_code in (403, 404), path
        assert b"private" not in answer.content, path
    assert requests.put(f"http://{address}:8080/{BUCKET}/new", b"x", timeout=10).status_code == 403
    store.delete_object(Bucket=BUCKET, Key="private")


def test_a_public_bucket_is_read_and_no_more(address, store):
    store.put_object(Bucket="shop-public", Key="a b.txt", Body=b"open")
    url = f"http://{address}:8080/shop-public/a%20b.txt"
    assert requests.get(url, timeout=10).content == b"open"
    assert requests.put(url, data=b"mine", timeout=10).status_code == 403
    assert requests.delete(url, timeout=10).status_code == 403
    listing = requests.get(f"http://{address}:8080/shop-public/", timeout=10)
    assert listing.status_code == 403
    store.delete_object(Bucket="shop-public", Key="a b.txt")


def test_refuses_more_than_the_quota(store):
    put = {"Bucket": "shop-small", "Key": "big"}
    with pytest.raises(ClientError, match="EntityTooLarge"):
        store.put_object(Body=b"x" * 2000, **put)
    assert refusal(store.head_object, **put) == 404


@pytest.mark.parametrize("call", ["lifecycle", "encryption", "replication", "ownership_controls"])
def test_deleting_a_setting_never_deletes_the_bucket(store, empty_bucket, call):
    name = {"lifecycle": "delete_bucket_lifecycle"}.get(call, f"delete_bucket_{call}")
    assert refusal(getattr(store, name), Bucket=empty_bucket) == 501
    store.head_bucket(Bucket=empty_bucket)


def test_an_early_error_leaves_the_connection_in_step(store):
    body = b"x" * 300_000  # large enough for boto3 to ask "Expect: 100-continue"
    for turn in range(3):
        assert refusal(store.put_object, Bucket="shop-missing", Key="k", Body=body) == 404
        store.put_object(Bucket=BUCKET, Key="k", Body=body + bytes([turn]))
        assert store.get_object(Bucket=BUCKET, Key="k")["Body"].read()[-1] == turn
    store.delete_object(Bucket=BUCKET, Key="k")


@pytest.mark.parametrize(("origin", "status"), [("shop", 200), ("evil", 401)])
def test_answers_the_declared_origin_only(address, origin, status):
    answer = requests.options(
        f"http://{address}:8080/{BUCKET}/k",
        headers={
            "Origin": f"https://{origin}.example.com",
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "authorization",
        },
        timeout=10,
    )
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    assert (answer.status_code, allowed) == (
        status,
        f"https://{origin}.example.com" if status == 200 else None,
    )


def test_configuration_is_closed_to_other_users(host):
    assert host.check_output("find /etc/swift -perm /o=rwx ! -type l") == ""
    assert host.run("setpriv --reuid=nobody --clear-groups ls /etc/swift").failed


def test_devices_belong_to_swift(host):
    device = host.file("/srv/swift/d1")
    assert (device.user, device.mode) == ("swift", 0o750)


def test_swifts_own_proxy_listens_on_the_host_only(host):
    assert host.socket("tcp://127.0.0.1:8081").is_listening
    assert not host.socket("tcp://0.0.0.0:8081").is_listening
    assert "0.0.0.0:11211" not in host.check_output("ss -ltnH")


def test_every_service_is_confined_and_stops_with_the_store(host):
    units = host.check_output("systemctl list-units --state=active --plain --no-legend "
                              "'swift-*.service' | cut -d' ' -f1").split()  # fmt: skip
    assert "swift-proxy.service" in units
    for unit in units:
        show = f"systemctl show {unit} --value -p ProtectSystem -p NoNewPrivileges -p PartOf"
        assert {"strict", "yes", "swift.target"} <= set(host.check_output(show).split()), unit


def test_unused_services_stay_off(host):
    units = host.check_output("systemctl list-units --state=active --plain --no-legend 'swift-*'")
    for unit in ("container-sync", "sharder", "reconciler", "reconstructor"):
        assert unit not in units


def test_starts_again_after_a_boot(host):
    assert host.service("swift.target").is_enabled
    assert host.service("memcached").is_enabled


def test_a_new_configuration_of_the_proxy_costs_no_request(host):
    ask = "curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8081/healthcheck"
    answers = host.check_output(
        f"systemctl reload swift-proxy & for i in $(seq 60); do {ask}; sleep 0.05; done; wait"
    )
    assert set(answers.split()) == {"200"}


def test_unattended_upgrades_leave_it_alone(host):
    dump = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    patterns = re.findall(r'::Package-Blacklist:: "(.+)";', dump)
    listed = host.check_output(
        "dpkg-query --show --showformat '${db:Status-Status} ${Package}\\n' '*swift*'"
    )
    ours = [line.split()[1] for line in listed.splitlines() if line.startswith("installed ")]
    assert {"swift-proxy", "swift-object", "python3-swift"} <= set(ours)
    # As unattended-upgrades matches them: from the beginning of the name.
    assert not [name for name in ours if not any(re.match(each, name) for each in patterns)]
