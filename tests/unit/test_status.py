"""The table of status.yml."""

from plugins.filter.status import status_rows, status_table

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
