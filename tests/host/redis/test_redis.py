"""One Redis with its Sentinel."""

import pytest

PASSWORD = 'test \\"redis'  # as redis-cli's input wants it


@pytest.fixture
def address(host):
    return host.ansible.get_variables()["ansible_host"]


def cli(host, address, *commands, port=6379, auth=f'AUTH "{PASSWORD}"'):
    lines = "\n".join([auth, *commands] if auth else commands)
    return host.run(f"redis-cli -t 2 -h {address} -p {port} <<'END'\n{lines}\nEND").stdout


@pytest.mark.parametrize("port", [6379, 26379])
def test_nothing_is_answered_without_the_password(host, address, port):
    assert "NOAUTH" in cli(host, address, "INFO", port=port, auth="")
    assert "WRONGPASS" in cli(host, address, "INFO", port=port, auth="AUTH wrong")
    assert "redis_version" in cli(host, address, "INFO", port=port)


def test_a_lone_primary_accepts_writes(host, address):
    assert cli(host, address, "SET a b", "GET a").split()[-1] == "b"
    assert "role:master" in cli(host, address, "INFO replication")
    assert cli(host, address, "CONFIG GET min-replicas-to-write").split()[-1] == "0"


def test_sentinel_names_the_primary_and_has_its_quorum(host, address):
    ask = "SENTINEL get-master-addr-by-name evenkeel"
    assert cli(host, address, ask, port=26379).split()[-2:] == [address, "6379"]
    assert "OK 1 usable" in cli(host, address, "SENTINEL CKQUORUM evenkeel", port=26379)
    assert "mymaster" not in cli(host, address, "SENTINEL MASTERS", port=26379)


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "KEYS *", "DEBUG JMAP"])
def test_commands_that_ruin_a_server_are_gone(host, address, command):
    assert "unknown command" in cli(host, address, command)


def test_memory_is_bounded_and_nothing_is_evicted(host, address):
    settings = cli(host, address, "CONFIG GET maxmemory*").split()
    assert settings[settings.index("maxmemory") + 1] == str(256 * 1024 * 1024)
    assert settings[settings.index("maxmemory-policy") + 1] == "noeviction"


def test_secrets_are_closed(host):
    for path in ("/etc/redis/evenkeel.conf", "/var/lib/redis/state.conf",
                 "/var/lib/redis/sentinel.conf"):  # fmt: skip
        assert host.file(path).group == "redis"
        assert not host.file(path).mode & 0o007, path


def test_acknowledged_data_outlives_kill_9(host, address):
    assert "aof_enabled:1" in cli(host, address, "INFO persistence")
    assert "1" in cli(host, address, "SET kept 42", "WAITAOF 1 0 2000").split()
    host.check_output("systemctl kill --signal=KILL redis-server")
    script = "sleep 1; until echo PING | redis-cli -h {0} | grep -q NOAUTH; do sleep 0.2; done"
    host.check_output(f"timeout 20 sh -c '{script.format(address)}'")
    assert cli(host, address, "GET kept").split()[-1] == "42"
