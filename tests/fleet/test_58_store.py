"""The object store of three: a lost host or an empty disk costs no file and no answer."""

import secrets

import pytest

from tests.fleet.changes import Meanwhile, change_under_load, needs_three
from tests.fleet.support import eventually, play, podman


@pytest.fixture(scope="module", autouse=True)
def of_three(fleet):
    needs_three(fleet)


def upload(fleet, client, content):
    """Announce and send a file; return its presigned address."""
    made = client.post(
        f"{fleet.url}/uploads",
        json={"filename": "x.bin", "content_type": "application/octet-stream",
              "size": len(content)},
        timeout=10,
    ).json()  # fmt: skip
    put = made["upload"]
    with fleet.session() as anonymous:
        sent = anonymous.put(put["url"], data=content, headers=put["headers"], timeout=10)
        assert sent.status_code in (200, 201), sent.text
    one = f"{fleet.url}/uploads/{made['id']}"
    assert client.post(f"{one}/complete", timeout=10).json()["status"] == "complete"
    return client.get(one, timeout=10).json()["get_url"]


def fetch(fleet, address):
    with fleet.session() as anonymous:
        answer = anonymous.get(address, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.content


def objects(fleet, host):
    """Names of the objects that a storage host holds."""
    names = fleet.ssh(host, "cd /srv/swift/d1 && find objects -name '*.data' | sort")
    return set(names.split())


def test_presigned_addresses_work_while_a_storage_host_is_lost(fleet, client):
    content = secrets.token_bytes(100_000)
    before = upload(fleet, client, content)
    lost = fleet.groups["storage"][0]
    try:
        podman("stop", "-t", "0", lost)
        for _ in range(8):
            assert fetch(fleet, before) == content
            mine = secrets.token_bytes(50_000)
            assert fetch(fleet, upload(fleet, client, mine)) == mine
    finally:
        podman("start", lost)
    rest = fleet.groups["storage"][1:]
    # It gets what it missed, by itself.
    eventually(lambda: objects(fleet, lost) >= objects(fleet, rest[0]), 180, 3)


class Reader(Meanwhile):
    """Fetches a file by its presigned address all the time."""

    def __init__(self, fleet, address, content):
        self.fleet, self.address, self.content = fleet, address, content
        self.fetched, self.failed = 0, []

    def step(self):
        try:
            assert fetch(self.fleet, self.address) == self.content
            self.fetched += 1
        except (AssertionError, OSError) as error:
            self.failed.append(error)


def test_a_disk_is_replaced_while_presigned_addresses_work(fleet, client):
    content = secrets.token_bytes(100_000)
    address = upload(fleet, client, content)
    host, other = fleet.groups["storage"][1:]
    eventually(lambda: objects(fleet, host) == objects(fleet, other), 120, 3)
    had = objects(fleet, other)
    fleet.ssh(host, "systemctl stop swift.target nginx && rm -rf /srv/swift/d1")
    fleet.ssh(host, "systemctl start nginx")
    with change_under_load(fleet), Reader(fleet, address, content) as reader:
        play("replace_disk.yml", "-e", f"host={host}")
    assert reader.failed == []
    assert reader.fetched > 20
    assert objects(fleet, host) >= had
    assert fleet.ssh(host, "stat -c %U /srv/swift/d1") == "swift"


@pytest.mark.parametrize(
    ("lose", "give_back"),
    [
        ("systemctl stop swift.target", "systemctl start swift.target"),
        ("mv -T /srv/swift/d1 /srv/swift/away", "mv -T /srv/swift/away /srv/swift/d1"),
    ],
    ids=["store", "disk"],
)
def test_the_only_copies_are_not_replaced(fleet, lose, give_back):
    host, other = fleet.groups["storage"][:2]
    fleet.ssh(other, lose)
    try:
        done = play("replace_disk.yml", "-e", f"host={host}", code=None)
    finally:
        fleet.ssh(other, give_back)
    assert done.code != 0
    assert f"can't spare {host}" in done.output
    assert other in done.output
    assert done.changed == {}
    eventually(lambda: play("status.yml", code=None).code == 0, 60)
