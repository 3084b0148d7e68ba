"""Copies in another account: of a bucket with what was removed, of a file, sealed."""

import re
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET = "shop-uploads"


def client(address, access, secret):
    return boto3.client(
        "s3",
        endpoint_url=f"http://{address}:8080",
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )


@pytest.fixture
def address(host):
    return host.ansible.get_variables()["ansible_host"]


@pytest.fixture
def app(address):
    return client(address, "shop:app", "test-app-key")


@pytest.fixture
def copies(address):
    return client(address, "copies:rclone", "test-copies-key")


def copy(host):
    host.check_output("systemctl start rclone-copies")
    return host.check_output("date -u +%F")


def read(store, key):
    return store.get_object(Bucket="copies", Key=key)["Body"].read()


def test_the_bucket_is_copied_and_what_it_loses_is_kept(host, app, copies):
    app.put_object(Bucket=BUCKET, Key="a/kept.txt", Body=b"first")
    app.put_object(Bucket=BUCKET, Key="a/lost ü.txt", Body=b"lost")
    copy(host)
    assert read(copies, f"buckets/{BUCKET}/current/a/kept.txt") == b"first"

    app.put_object(Bucket=BUCKET, Key="a/kept.txt", Body=b"second")
    app.delete_object(Bucket=BUCKET, Key="a/lost ü.txt")
    today = copy(host)
    assert read(copies, f"buckets/{BUCKET}/current/a/kept.txt") == b"second"
    assert read(copies, f"buckets/{BUCKET}/removed/{today}/a/kept.txt") == b"first"
    assert read(copies, f"buckets/{BUCKET}/removed/{today}/a/lost ü.txt") == b"lost"
    with pytest.raises(ClientError, match="404"):
        copies.head_object(Bucket="copies", Key=f"buckets/{BUCKET}/current/a/lost ü.txt")


def test_what_was_kept_long_enough_goes(host, copies):
    put = {"Bucket": "copies", "Body": b"x"}
    copies.put_object(Key=f"buckets/{BUCKET}/removed/2020-01-01/old", **put)
    copies.put_object(Key=f"buckets/{BUCKET}/removed/2999-01-01/new", **put)
    copy(host)
    listed = copies.list_objects_v2(Bucket="copies", Prefix=f"buckets/{BUCKET}/removed/2")
    days = {item["Key"].split("/")[3] for item in listed["Contents"]}
    assert "2999-01-01" in days
    assert "2020-01-01" not in days
    copies.delete_object(Bucket="copies", Key=f"buckets/{BUCKET}/removed/2999-01-01/new")


def test_the_file_is_sealed_and_can_be_opened(host, copies):
    today = copy(host)
    key = f"files/redis/storage1/{today}.sealed"
    assert read(copies, key).startswith(b"Salted__")
    rclone = "rclone --config /etc/rclone-copies.conf --ca-cert /etc/rclone-store.pem"
    opened = host.check_output(
        f"{rclone} cat copies:copies/{key} | "
        "openssl enc -d -aes-256-cbc -pbkdf2 -pass file:/etc/rclone-copies.pass"
    )
    assert opened == "REDIS0012 a-text-to-look-for"


def drill(host):
    return host.run("/usr/local/sbin/rclone-drill")


def test_the_drill_fetches_what_was_copied_and_compares(host, app, copies):
    app.put_object(Bucket=BUCKET, Key="drill/one.txt", Body=b"one")
    app.put_object(Bucket=BUCKET, Key="drill/zwei ü.txt", Body=b"two")
    time.sleep(2)  # what is as old as the copy counts as younger
    copy(host)
    app.put_object(Bucket=BUCKET, Key="drill/later.txt", Body=b"no copy has it, and none could")
    said = drill(host)
    assert said.rc == 0, said.stderr
    compared = re.search(r"bucket shop-uploads: (\d+) objects .*, (\d+) compared", said.stdout)
    assert int(compared[2]) >= 2
    assert re.search(r"file redis: \S+ opened, \d+ bytes, grep \S+ reads it", said.stdout)
    assert not host.file("/var/lib/rclone-copies/drill").exists

    copies.put_object(Bucket="copies", Key=f"buckets/{BUCKET}/current/drill/one.txt", Body=b"0ne")
    said = drill(host)
    assert said.rc != 0
    assert "drill/one.txt" in said.stderr


def test_a_bucket_is_restored_from_its_copy(host, app):
    app.put_object(Bucket=BUCKET, Key="back/lost.txt", Body=b"to get back")
    copy(host)
    app.delete_object(Bucket=BUCKET, Key="back/lost.txt")
    current = f"copies:copies/buckets/{BUCKET}/current"
    restore = "/usr/local/sbin/rclone-store copy --ignore-existing"
    host.check_output(f"{restore} {current} {BUCKET}:{BUCKET}")
    assert app.get_object(Bucket=BUCKET, Key="back/lost.txt")["Body"].read() == b"to get back"


def test_the_app_reaches_no_copy(app):
    with pytest.raises(ClientError, match=r"404|403|NoSuchBucket|AccessDenied"):
        app.list_objects_v2(Bucket="copies")


def test_secrets_are_closed(host):
    for name in ("/etc/rclone-copies.conf", "/etc/rclone-copies.pass"):
        found = host.file(name)
        assert (found.user, found.mode) == ("root", 0o600), name


def test_the_timer_waits(host):
    timer = host.service("rclone-copies.timer")
    assert timer.is_enabled
    assert timer.is_running
