"""Backups in the object store: taken, encrypted, proved, restored to a point in time."""

import json
import re
import tempfile
import time

import pytest

from tests.host.entry import run

testinfra_hosts = ["ansible://db1"]
SCRATCH = "/var/lib/postgresql/scratch"
# A member that follows db2, and db2.
PRETENDER = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

DB2 = {"name": "db2", "role": "leader", "api_url": "http://127.0.0.1:8009/db2/patroni"}


class Patroni(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path == "/primary" else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"members": [DB2]}).encode())


HTTPServer(("127.0.0.1", 8009), Patroni).serve_forever()
"""


def as_postgres(host, command):
    return host.check_output(f"runuser -u postgres -- {command}")


def tool(host, command):
    return json.loads(as_postgres(host, f"pgbackrest-scratch {command}"))


def sql(host, query, socket="/var/run/postgresql"):
    return as_postgres(host, f'psql -XAtq -h {socket} -d shop -c "{query}"')


def backups(host, repository=1):
    command = f"pgbackrest info --repo={repository} --output=json"
    return json.loads(as_postgres(host, command))[0]["backup"]


@pytest.fixture(scope="module", autouse=True)
def first_backup(host):
    """The role only began it."""
    limit = time.monotonic() + 180
    while not backups(host):
        assert time.monotonic() < limit, host.run("journalctl -u 'pgbackrest*' -n 40").stdout
        time.sleep(1)
    rows = "SELECT i, md5(i::text) FROM generate_series(1, 1000) i"
    sql(host, "CREATE TABLE IF NOT EXISTS kept (n int, v text); TRUNCATE kept")
    sql(host, f"INSERT INTO kept {rows}")


@pytest.fixture
def store(request):
    import testinfra

    return testinfra.get_host(
        "ansible://storage1",
        ansible_inventory=request.config.option.ansible_inventory,
        ssh_config=request.config.option.ssh_config,
    )


@pytest.fixture
def scratch(host):
    yield SCRATCH
    as_postgres(host, "pgbackrest-scratch drop")


def test_the_first_backup_is_full_and_without_errors(host):
    first = backups(host)[0]
    assert (first["type"], first["error"]) == ("full", False)


def test_the_timers_wait_for_their_hours(host):
    for name in ("full@1", "diff@1", "check@1", "full@2", "diff@2", "check@2"):
        timer = host.service(f"pgbackrest-{name}.timer")
        assert timer.is_enabled, name
        assert timer.is_running, name
    listed = host.check_output("systemctl list-timers --no-legend 'pgbackrest*'")
    assert "Sun" in next(line for line in listed.splitlines() if "full@1" in line)


@pytest.fixture
def elsewhere(host):
    """The tool asks a Patroni of which there is none yet, at port 8009."""
    settings = host.check_output("cat /etc/pgbackrest-scratch.json")
    other = re.sub(r'"http://[^"]*"', '"http://127.0.0.1:8009"', settings)
    host.check_output(f"cat > /etc/pgbackrest-scratch.json <<'E'\n{other}\nE")
    yield
    host.check_output(f"cat > /etc/pgbackrest-scratch.json <<'E'\n{settings}\nE")
    host.run("systemctl stop pretender pgbackrest-diff@1; systemctl reset-failed 'pgbackrest*'")


def result(host):
    return host.check_output("systemctl show -p Result --value pgbackrest-diff@1")


def test_only_a_leader_takes_backups(host, elsewhere):
    before = len(backups(host))
    host.check_output(f"cat > /run/pretender.py <<'E'\n{PRETENDER}\nE")
    host.check_output("systemd-run --unit=pretender python3 /run/pretender.py")
    host.check_output(
        "timeout 20 bash -c 'until (: < /dev/tcp/127.0.0.1/8009); do sleep 0.2; done'"
    )
    host.check_output("systemctl start pgbackrest-diff@1.service")
    assert result(host) == "exec-condition"
    assert len(backups(host)) == before


def test_a_member_that_can_not_know_fails_and_tries_again(host, elsewhere):
    assert host.run("systemctl start pgbackrest-diff@1.service").rc != 0
    assert result(host) == "exit-code"
    state = host.check_output("systemctl show -p SubState --value pgbackrest-diff@1")
    assert state.startswith("auto-restart")


def test_wal_is_archived_within_the_promised_minute(host):
    marked = tool(host, "mark within-a-minute")
    assert marked["sums"]["shop/public.kept"].startswith("1000 rows, ")
    assert 0 < marked["archived_s"] < 75


def test_wal_that_waits_for_an_archiver_that_hangs_has_a_note(host):
    archiver = sql(host, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'")
    waiting = "/var/lib/postgresql/17/main/pg_wal/archive_status/*.ready"
    host.check_output(f"kill -STOP {archiver}")
    try:
        sql(host, "SELECT pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()")
        host.check_output(f"touch -d '20 minutes ago' {waiting}")
        told = tool(host, "notes")
    finally:
        host.check_output(f"kill -CONT {archiver}")
    assert any(note.startswith("WAL does not reach the archive") for note in told)
    host.check_output(f"timeout 120 sh -c 'while ls {waiting}; do sleep 0.5; done'")
    assert not any(note.startswith("WAL does not reach") for note in tool(host, "notes"))


def test_the_repository_is_encrypted(host, store):
    tool(host, "flush")
    # How files begin: an OpenSSL header, or zstd's, if they were only compressed.
    heads = store.check_output(
        "find /srv/swift -name '*.data' -exec sh -c 'head -c 4 \"$1\" | od -An -tx1' - {} ';'"
    ).splitlines()
    assert heads.count(" 53 61 6c 74") > 5
    assert " 28 b5 2f fd" not in heads


def test_secrets_are_closed(host):
    config = host.file("/etc/pgbackrest.conf")
    assert (config.user, config.group, config.mode) == ("root", "postgres", 0o640)
    # Patterns that don't match themselves: sudo logs this command.
    readers = host.check_output(
        r"grep -rls 'test-[p]assphrase\|test-[b]ackup-key' /etc /run /var/lib /var/log || true"
    ).split()
    assert readers == ["/etc/pgbackrest.conf"]


def test_a_certificate_that_was_not_given_is_refused(host):
    # Debian's authorities, of which none knows the store.
    refused = host.run("runuser -u postgres -- pgbackrest --stanza=main info "
                       "--repo1-storage-ca-file=/etc/ssl/certs/ca-certificates.crt")  # fmt: skip
    assert "certificate" in refused.stdout + refused.stderr


def test_the_check_proves_the_newest_backup_once(host):
    host.check_output("systemctl start pgbackrest-diff@1.service")
    host.check_output("systemctl restart pgbackrest-check@1.service")
    newest = backups(host)[-1]
    assert newest["type"] == "diff"
    checked = json.loads(host.check_output(f"cat {SCRATCH}-checked-1.json"))
    assert checked["backup"] == newest["label"]
    assert checked["rows"] >= 1000
    assert not host.file(SCRATCH).exists
    assert tool(host, "check") == checked


def test_a_second_repository_has_backups_and_proofs_of_its_own(host):
    host.check_output("systemctl start pgbackrest-full@2.service")
    host.check_output("systemctl restart pgbackrest-check@2.service")
    newest = backups(host, 2)[-1]
    assert newest["label"] not in [backup["label"] for backup in backups(host)]
    checked = json.loads(host.check_output(f"cat {SCRATCH}-checked-2.json"))
    assert checked["backup"] == newest["label"]
    assert tool(host, "notes") == []  # both are new, and proved


def test_a_restore_can_come_from_the_second_repository(host, scratch):
    marked = tool(host, "mark second")
    found = tool(host, "--repository 2 restore name --target second")
    assert found["backup"] in [backup["label"] for backup in backups(host, 2)]
    compared = json.loads(as_postgres(
        host, f"sh -c 'echo {json.dumps(json.dumps(marked))} | pgbackrest-scratch compare'"
    ))  # fmt: skip
    assert compared["differences"] == []


def test_a_backup_with_a_damaged_page_is_not_called_proved(host):
    sql(host, "CREATE TABLE damaged AS SELECT generate_series(1, 5000) n; CHECKPOINT")
    path = "/var/lib/postgresql/17/main/" + sql(host, "SELECT pg_relation_filepath('damaged')")
    try:
        host.check_output(f"printf x | dd of={path} bs=1 seek=12000 conv=notrunc status=none")
        host.check_output("systemctl start pgbackrest-diff@1.service")
        refused = host.run("systemctl start pgbackrest-check@1.service")
        journal = host.check_output("journalctl -u pgbackrest-check@1 -n 20")
        told = tool(host, "notes")
    finally:
        sql(host, "DROP TABLE damaged")
        host.run("systemctl reset-failed 'pgbackrest*'")
        host.check_output("systemctl start pgbackrest-full@1.service")
    assert refused.rc != 0
    assert "damaged pages" in journal
    assert any(note.startswith("pgbackrest-check@1 failed") for note in told)


def test_restores_to_a_marked_moment_with_every_row(host, scratch):
    sql(host, "INSERT INTO kept VALUES (1001, 'before')")
    marked = tool(host, "mark the-moment")
    sql(host, "INSERT INTO kept VALUES (1002, 'after')")
    tool(host, "restore name --target the-moment")
    compared = json.loads(as_postgres(
        host, f"sh -c 'echo {json.dumps(json.dumps(marked))} | pgbackrest-scratch compare'"
    ))  # fmt: skip
    assert compared["differences"] == []
    assert sql(host, "SELECT v FROM kept WHERE n > 1000", scratch) == "before"


def test_restores_to_a_point_in_time_and_nothing_after_it(host, scratch):
    sql(host, "DELETE FROM kept WHERE n > 1000; INSERT INTO kept VALUES (2001, 'before')")
    time.sleep(1.1)
    moment = sql(host, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")
    time.sleep(1.1)
    sql(host, "INSERT INTO kept VALUES (2002, 'after'); DELETE FROM kept WHERE n = 1")
    tool(host, "flush")
    tool(host, f"restore time --target '{moment}+00'")
    assert (
        sql(host, "SELECT n FROM kept WHERE n IN (1, 2001, 2002) ORDER BY n", scratch) == "1\n2001"
    )
    assert sql(host, "SELECT n FROM kept WHERE n IN (1, 2001, 2002) ORDER BY n") == "2001\n2002"


def test_the_scratch_cluster_has_no_network(host, scratch):
    tool(host, "restore immediate")
    pid = host.check_output(f"head -1 {scratch}/data/postmaster.pid")
    sockets = host.check_output(f"ss -Hltnp | grep 'pid={pid},' || true")
    assert sockets == ""


def test_compare_tells_a_difference(host, scratch):
    marked = tool(host, "mark differs")
    tool(host, "restore name --target differs")
    marked["sums"]["shop/public.kept"] = "1 rows, checksum 1"
    compared = json.loads(as_postgres(
        host, f"sh -c 'echo {json.dumps(json.dumps(marked))} | pgbackrest-scratch compare'"
    ))  # fmt: skip
    assert len(compared["differences"]) == 1


DATA = "/var/lib/postgresql/17/main"
ASIDE = f"{DATA}.replaced"
MARK = f"{ASIDE}.unended"
# playbooks/restore.yml, as far as one member goes.
RESTORE = {
    "pgbackrest_repository": 1, "pgbackrest_to": "", "pgbackrest_timeline": "",
    "pgbackrest_label": "", "pgbackrest_keep_replaced": True, "pgbackrest_complete": False,
}  # fmt: skip


def include(role, entry):
    return {"ansible.builtin.include_role": {"name": role, "tasks_from": entry}}


def restore(*steps):
    stop = {"ansible.builtin.systemd_service": {"name": "patroni", "state": "stopped"}}
    first = [include("pgbackrest", "look"), include("pgbackrest", "fetch"), stop]
    play = {"hosts": "db1", "vars": RESTORE, "tasks": [*first, *steps]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump([play], file)
        file.flush()
        done = run(["ansible-playbook", file.name], "pgbackrest")
    assert done.returncode == 0, done.stdout + done.stderr


def inode(host, path):
    return host.check_output(f"stat -c %i {path}")


def test_a_restore_after_one_that_did_not_end_keeps_what_was_put_aside(host):
    rows = sql(host, "SELECT count(*), min(n), max(n) FROM kept")
    promote, forget = include("pgbackrest", "promote"), include("postgresql", "forget")
    original = inode(host, DATA)
    restore(promote)  # and here it is interrupted
    assert host.file(MARK).exists
    unfinished = inode(host, DATA)
    restore(promote, forget, include("pgbackrest", "serve"))
    assert inode(host, ASIDE) == original
    assert inode(host, DATA) not in (original, unfinished)
    assert not host.file(MARK).exists
    assert sql(host, "SELECT count(*), min(n), max(n) FROM kept") == rows
    # One that ended: the next replaces what it has put aside.
    served = inode(host, DATA)
    restore(promote, forget, include("pgbackrest", "serve"))
    assert inode(host, ASIDE) == served
