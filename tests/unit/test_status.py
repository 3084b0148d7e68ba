"""The table of status.yml."""

from plugins.filter.status import status_rows, status_table
from plugins.modules import host_status

OK = {"tier": "app", "release": "0123456789ab", "processes": "web 5", "health": "ok"}


def test_a_host_has_a_row_for_each_tier():
    rows = status_rows(["one"], {"one": {"rows": [OK, {**OK, "tier": "lb"}]}})
    assert [(row["host"], row["tier"]) for row in rows] == [("one", "app"), ("one", "lb")]


def test_a_dead_host_has_a_row_that_says_so():
    (row,) = status_rows(["app1"], {"app1": {"unreachable": True, "msg": "timed\nout"}})
    assert row["health"] == "unreachable: timed out"
    assert "healthy" not in row


def test_columns_line_up():
    table = status_table(status_rows(["a", "longer"], {"a": {"rows": [OK]}, "longer": {}}))
    lines = table.splitlines()
    assert lines[0].split() == ["host", "tier", "release", "processes", "health"]
    assert {line.index(word) for line, word in zip(lines[1:], ("app", "-"), strict=True)} == {8}


def test_a_store_without_its_disk_is_unwell_though_it_listens(monkeypatch):
    def get(_, port, path):
        return 200 if port == 8080 else 507 if path.startswith("/d2/") else 404, ""

    monkeypatch.setattr(host_status, "get", get)
    monkeypatch.setattr(host_status, "listens", lambda *_: True)
    monkeypatch.setattr(host_status.Status, "units", lambda *_: ("", []))
    for devices, healthy in ((["d1"], True), (["d1", "d2"], False)):
        row = host_status.Status({"address": "10.0.0.1", "devices": devices}).row("storage")
        assert row["healthy"] == healthy
    assert "device d2 is not there" in row["health"]
