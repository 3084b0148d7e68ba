"""One member: passwords, privileges, durability."""

import time

import psycopg
import pytest

from tests.host.entry import converge

PASSWORD = "test: shop's"


@pytest.fixture
def address(host):
    return host.ansible.get_variables()["ansible_host"]


def connect(address, user="shop", password=PASSWORD, dbname="shop"):
    return psycopg.connect(
        host=address, user=user, password=password, dbname=dbname,
        connect_timeout=3, target_session_attrs="read-write", autocommit=True,
    )  # fmt: skip


def psql(host, query):
    return host.check_output(f'psql -XAtq -U postgres -c "{query}"')


def test_the_owner_writes_over_tcp_with_its_password(address):
    with connect(address) as db:
        db.execute("CREATE TABLE IF NOT EXISTS written (n int)")
        assert db.execute("INSERT INTO written VALUES (1) RETURNING n").fetchone() == (1,)


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_or_missing_password_is_refused(address, password):
    with pytest.raises(psycopg.OperationalError, match="password"):
        connect(address, password=password)


@pytest.mark.parametrize("user", ["postgres", "replicator"])
def test_the_superuser_and_replicator_are_refused_from_elsewhere(address, user):
    secret = {"postgres": 'test superuser"s', "replicator": "test-replication"}[user]
    with pytest.raises(psycopg.OperationalError, match="pg_hba"):
        connect(address, user=user, password=secret)


def test_other_databases_are_out_of_reach(address):
    with pytest.raises(psycopg.OperationalError, match="pg_hba"):
        connect(address, dbname="postgres")


def test_no_rule_trusts_and_every_password_is_scram(host):
    methods = psql(host, "SELECT DISTINCT auth_method FROM pg_hba_file_rules").split()
    assert set(methods) == {"peer", "scram-sha-256", "reject"}
    assert psql(host, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"
    hashes = psql(host, "SELECT rolpassword FROM pg_authid WHERE rolcanlogin").splitlines()
    assert len(hashes) == 3
    assert all(line.startswith("SCRAM-SHA-256$") for line in hashes)


def test_an_unprivileged_local_user_is_not_the_superuser(host):
    refused = host.run("setpriv --reuid=65534 --clear-groups psql -XU postgres -c 'SELECT 1'")
    assert refused.rc != 0
    assert "Peer authentication failed" in refused.stderr


def test_pages_are_checksummed_and_text_is_sorted_alike_everywhere(host):
    assert psql(host, "SHOW data_checksums") == "on"
    assert psql(
        host, "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale "
        "FROM pg_database WHERE datname = 'shop'"
    ) == "UTF8|b|C.UTF-8"  # fmt: skip


def test_memory_follows_the_input_and_nothing_waits_for_a_restart(host):
    assert psql(host, "SHOW shared_buffers") == "256MB"
    assert psql(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"


def test_as_much_wal_is_kept_as_may_have_to_be_replayed(host):
    assert psql(host, "SHOW wal_keep_size") == psql(host, "SHOW max_wal_size") == "1GB"


def test_a_standby_looks_for_its_leader_each_second(host):
    assert psql(host, "SHOW wal_retrieve_retry_interval") == "1s"


def test_the_rest_api_changes_nothing_without_its_password(host, address):
    status = "curl -s -o /dev/null -w '%{http_code}' --max-time 5 "
    patch = f"-X PATCH -d '{{}}' http://{address}:8008/config"
    assert host.check_output(status + patch) == "401"
    assert host.check_output(f"{status} -u patroni:wrong {patch}") == "401"


def test_secrets_are_closed(host):
    config = host.file("/etc/patroni/config.yml")
    assert (config.user, config.group, config.mode) == ("root", "postgres", 0o640)
    assert host.file("/var/lib/postgresql/17/main").mode == 0o700
    readers = host.check_output(
        "grep -rlsF -e test-replication -e test-rest /etc /run /var/lib /var/log || true"
    ).split()
    for path in readers:
        assert not host.file(path).mode & 0o007, path


def test_debian_made_no_cluster_of_its_own(host):
    assert host.check_output("pg_lsclusters --no-header") == ""


def test_slow_statements_are_logged(host, address):
    with connect(address) as db:
        db.execute("SELECT pg_sleep(0.6), 'a slow one'")
    host.check_output("timeout 10 sh -c 'until journalctl -u patroni | grep -q \"a slow one\"; "
                      "do sleep 0.3; done'")  # fmt: skip


def test_recovers_from_kill_9_of_the_postmaster_with_every_acknowledged_row(host, address):
    with connect(address) as db:
        db.execute("CREATE TABLE IF NOT EXISTS survives (n int)")
        db.execute("INSERT INTO survives VALUES (42)")
    host.check_output("kill -9 $(head -1 /var/lib/postgresql/17/main/postmaster.pid)")
    deadline = time.monotonic() + 30
    while True:
        try:
            with connect(address) as db:
                assert db.execute("SELECT n FROM survives").fetchall()[-1] == (42,)
                return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "not back within 30 s"
            time.sleep(0.2)


def test_passwords_of_users_stay_out_of_the_journal(host):
    variables = {
        "postgresql_parameters": {"log_min_duration_statement": 0, "log_statement": "ddl"},
        # The last is refused: its name is PostgreSQL's.
        "postgresql_users": [{"name": "shop", "password": "leaks-changed"},
                             {"name": "pg_shop", "password": "leaks-refused"}],
    }  # fmt: skip
    try:
        refused = converge("postgresql", variables)
        psql(host, "SELECT 'logged at once'")
        host.check_output("timeout 10 sh -c 'until journalctl -u patroni | "
                          "grep -q \"logged at once\"; do sleep 0.3; done'")  # fmt: skip
        journal = host.check_output("journalctl -u patroni --no-pager")
    finally:
        mended = converge("postgresql", {})
    assert refused.returncode != 0
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert 'role name "pg_shop" is reserved' in journal
    assert "leaks-" not in journal


def test_settings_that_need_a_restart_get_it_in_the_run_that_changes_them(host):
    wanted = {"shared_buffers": "200MB", "max_connections": "250"}  # from its file, and from etcd
    done = converge("postgresql", {"postgresql_parameters": wanted})
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: psql(host, f"SHOW {name}") for name in wanted} == wanted
    assert psql(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
