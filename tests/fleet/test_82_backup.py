"""Backups of the database: taken and proved, drilled, and restored to a point in time."""

import json
import re
import time

import pytest

from tests.fleet.support import LAB, eventually, play

WORDS = f"replace-the-database-of-{LAB.name}"
SUMS = "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM sales t;"


def extra(**variables):
    """Give variables as an operator types them, at whose spaces Ansible would split."""
    return [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]


def sell(fleet, item):
    token = fleet.login()["access_token"]
    with fleet.session() as session:
        answer = session.post(
            f"{fleet.url}/sales",
            json={"item": item, "amount": 100},
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
        )
    if answer.status_code != 201:
        raise ConnectionError(answer.text)


def items(fleet, like):
    return {item for (item,) in fleet.sql(f"SELECT item FROM sales WHERE item LIKE '{like}';")}


def members(fleet):
    host = fleet.groups["db"][0]
    answer = fleet.ssh(host, f"curl -fsS http://{fleet.addresses[host]}:8008/cluster")
    return {m["name"]: m for m in json.loads(answer)["members"]}


@pytest.fixture(scope="module")
def backup(fleet):
    return play("backup.yml", *extra(type="full"))


def test_a_backup_is_taken_and_proved_by_a_restore(backup):
    assert "was restored, every row read, every page verified" in backup.output


def test_the_next_backup_holds_only_what_has_changed(fleet, backup):
    done = play("backup.yml")
    kinds = re.findall(r"(\w+) backup: \S+", done.output)
    assert kinds[-2:] == ["full", "diff"]


def test_status_has_no_note_on_backups_that_were_just_proved(fleet, backup):
    said = play("status.yml", code=None).output
    for host in fleet.groups["db"]:
        row = re.search(rf"\b{host} +db .*", said)[0]
        assert "ok, " in row
        assert "pgbackrest" not in row, row


def test_a_drill_compares_every_table_and_prints_rpo_and_rto(fleet, backup):
    with fleet.load():
        done = play("restore_drill.yml")
    found = re.search(r"(\d+) tables, (\d+) rows: the same", done.output)
    assert int(found[1]) > 3
    assert int(found[2]) >= int(fleet.sql("SELECT count(*) FROM sales;")[0][0]) * 0.9
    assert float(re.search(r"RPO ([\d.]+) s", done.output)[1]) < 90
    assert float(re.search(r"RTO ([\d.]+) s", done.output)[1]) < 300
    said = " ".join(done.output.split())
    assert re.search(r"bucket \S+: \d+ objects fetched from the copy", said)


@pytest.mark.parametrize(
    "said", [{}, {"overwrite": "yes"}, {"overwrite": "replace-the-database-of-prod"}]
)
def test_a_restore_does_not_replace_a_healthy_cluster_that_was_not_named(fleet, backup, said):
    before = members(fleet)
    done = play("restore.yml", *extra(**said), code=None)
    assert done.code != 0
    assert f"-e overwrite={WORDS}" in done.output
    assert done.changed == {}
    assert {name: m["timeline"] for name, m in members(fleet).items()} == {
        name: m["timeline"] for name, m in before.items()
    }


@pytest.mark.parametrize(
    ("to", "reason"),
    [("yesterday", "is no time"), ("2020-01-01T00:00:00", "before the end of the oldest backup"),
     ("2999-01-01T00:00:00", "has not come yet")],
)  # fmt: skip
def test_a_target_out_of_reach_changes_nothing(fleet, backup, to, reason):
    done = play("restore.yml", *extra(to=to, overwrite=WORDS), code=None)
    assert done.code != 0
    assert reason in " ".join(done.output.split())
    assert done.changed == {}


def test_restore_to_a_point_in_time_has_all_before_it_and_nothing_after(fleet, backup):
    run = f"restore-{int(time.time())}"
    for number in range(5):
        sell(fleet, f"{run}-before-{number}")
    before = fleet.sql(SUMS)
    time.sleep(1.5)
    ((moment,),) = fleet.sql(
        "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS');"
    )
    time.sleep(1.5)
    for number in range(5):
        sell(fleet, f"{run}-after-{number}")
    fleet.sql(f"DELETE FROM sales WHERE item = '{run}-before-0';")  # the mistake to undo
    assert fleet.sql(SUMS) != before

    done = play("restore.yml", *extra(to=moment.replace(" ", "T"), overwrite=WORDS))
    print(re.search(r"The database is back.*?start", " ".join(done.output.split()))[0])

    assert fleet.sql(SUMS) == before
    assert items(fleet, f"{run}-%") == {f"{run}-before-{number}" for number in range(5)}
    eventually(lambda: sell(fleet, f"{run}-later") or True, 60)
    fleet.wait_all_answer()
    found = members(fleet)
    assert set(found) == set(fleet.groups["db"])
    assert sum(m["role"] == "leader" for m in found.values()) == 1
    assert all(m["state"] in ("running", "streaming") for m in found.values())


def test_the_restored_cluster_is_backed_up_again(fleet, backup):
    done = play("backup.yml")
    assert "every page verified" in done.output


@pytest.mark.full
def test_the_restored_cluster_is_as_site_yml_wants_it(fleet, backup):
    assert play("site.yml").changed == {}


def test_restore_of_the_latest_loses_nothing(fleet, backup):
    sell(fleet, "restore-latest")
    before = fleet.sql(SUMS)
    play("restore.yml", *extra(overwrite=WORDS))
    assert fleet.sql(SUMS) == before
