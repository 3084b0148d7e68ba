"""The app's processes: they serve, they survive, and they can't do what they need not."""

import json

import pytest

from tests.host.entry import call


@pytest.fixture
def release(host):
    return host.check_output("basename $(readlink /srv/tiny/current)")


def unit(release):
    return f"tiny-web@{release}.service"


def properties(host, name, *wanted):
    options = " ".join(f"-p {each}" for each in wanted)
    lines = host.check_output(f"systemctl show {name} {options}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def get(host, path):
    return host.check_output(f"curl -sS --retry 20 --retry-all-errors --retry-delay 1 "
                             f"-m 10 http://127.0.0.1:8000{path}")  # fmt: skip


def test_answers_with_the_release_that_is_live(host, release):
    assert release in get(host, "/")


def test_every_type_runs_and_only_the_live_release(host, release):
    running = host.check_output(
        "systemctl list-units --plain --no-legend --state=active 'tiny-*.service'"
    )
    names = {line.split()[0] for line in running.splitlines()}
    assert names == {
        f"tiny-web@{release}.service",
        f"tiny-worker@{release}.service",
        f"tiny-worker-2@{release}.service",
    }


def test_starts_with_the_host(host, release):
    for name in (unit(release), "tiny-web.socket", "tiny.target"):
        assert host.check_output(f"systemctl is-enabled {name}") == "enabled"


def test_runs_as_a_user_that_owns_nothing_of_the_release(host, release):
    pid = properties(host, unit(release), "MainPID")["MainPID"]
    assert host.check_output(f"ps -o user= -p {pid}").strip() == "tiny"
    assert host.check_output(f"find -L /srv/tiny/releases/{release} -user tiny | head") == ""


def test_secrets_reach_the_process_and_nobody_else(host, release):
    secrets = host.file("/etc/tiny/secrets.env")
    assert (secrets.user, secrets.mode) == ("root", 0o600)
    pid = properties(host, unit(release), "MainPID")["MainPID"]
    assert "hunter2" in host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/environ")
    assert "hunter2" not in host.check_output(f"systemctl show {unit(release)}")
    assert "hunter2" not in host.check_output("ps -eo args")
    assert "hunter2" not in host.check_output("journalctl --no-pager -q | tail -n 5000")
    assert host.run("grep -r hunter2 /etc/systemd /srv/tiny").rc == 1


def test_the_sandbox_holds(host, release):
    pid = properties(host, unit(release), "MainPID")["MainPID"]
    status = host.check_output(f"cat /proc/{pid}/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    # The application tells what it could do from inside.
    seen = json.loads(get(host, "/"))
    assert seen["writes"].pop("/srv/tiny/shared/x") == "written"
    assert set(seen["writes"]) == {
        "/srv/tiny/x",
        f"/srv/tiny/releases/{release}/src/x",
        "/etc/x",
        "/usr/x",
    }
    assert "written" not in seen["writes"].values()
    assert not seen["homes"]


def test_settings_reach_the_process_as_they_were_written(host):
    seen = json.loads(get(host, "/"))
    assert seen["greeting"] == 'a "quoted" $HOME \\ value'
    assert seen["secret_length"] == len('hunter2 "with" $signs')


def test_a_loss_of_every_worker_fails_no_request(host, release):
    before = json.loads(get(host, "/"))["pid"]
    host.check_output(f"pkill -9 -P {properties(host, unit(release), 'MainPID')['MainPID']}")
    assert json.loads(get(host, "/"))["pid"] != before


def test_a_reload_replaces_the_workers_and_fails_no_request(host, release):
    main = properties(host, unit(release), "MainPID")["MainPID"]
    before = set(host.check_output(f"pgrep -P {main}").split())
    asked = "curl -sS -m 10 -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8000/; sleep 0.05"
    said = host.check_output(
        f"systemctl reload {unit(release)}; for n in $(seq 60); do {asked}; done"
    )
    assert said.split() == ["200"] * 60
    old = "|".join(before)
    left = f"pgrep -P {main} | grep -qxE '{old}'"
    host.check_output(f"for n in $(seq 30); do {left} || exit 0; sleep 1; done; exit 1")
    assert properties(host, unit(release), "MainPID")["MainPID"] == main
    assert len(host.check_output(f"pgrep -P {main}").split()) == len(before)


def test_a_server_has_a_directory_in_memory_for_itself(host, release):
    runtime = host.file(f"/run/tiny-web-{release}")
    assert (runtime.user, runtime.mode) == ("tiny", 0o700)
    assert host.check_output(f"stat -f -c %T {runtime.path}") == "tmpfs"


def test_only_root_may_probe(host, release):
    socket = host.file(f"/run/tiny/web-{release}.sock")
    assert (socket.user, socket.mode) == ("root", 0o600)


def test_comes_back_after_kill_9_of_the_master(host, release):
    before = properties(host, unit(release), "MainPID")["MainPID"]
    host.check_output(f"kill -9 {before}")
    assert release in get(host, "/")  # the socket held the request
    after = properties(host, unit(release), "MainPID")["MainPID"]
    assert after not in ("0", before)


def test_only_servers_are_given_up(host, release):
    wanted = ("StartLimitIntervalUSec", "RestartMaxDelayUSec", "MemoryMax")
    web = properties(host, unit(release), *wanted)
    worker = properties(host, f"tiny-worker@{release}.service", *wanted)
    assert web["StartLimitIntervalUSec"] == "1min"
    assert (worker["StartLimitIntervalUSec"], worker["RestartMaxDelayUSec"]) == ("0", "5s")
    assert "infinity" not in (web["MemoryMax"], worker["MemoryMax"])


def test_the_migration_ran(host):
    assert host.run("journalctl -q --no-pager -u tiny-migrate").rc == 0


def test_the_manifest_names_what_was_shipped(host, release):
    manifest = json.loads(host.file(f"/srv/tiny/releases/{release}/manifest.json").content_string)
    assert manifest["id"] == release
    for name, digest in manifest["files"].items():
        assert host.check_output(f"sha256sum /srv/tiny/artifacts/{name}").split()[0] == digest


def test_a_type_stays_on_its_port(host):
    """A new type takes a port, and one that listens does not change it."""
    types = host.ansible.get_variables()["app_processes"]
    at_8001 = {**types["web"], "listen": 8001}
    for given, refused in ((types, False), ({**types, "api": at_8001}, False),
                           ({**types, "web": at_8001}, True)):  # fmt: skip
        done = call("app", "ports", "-e", json.dumps({"app_processes": given}))
        assert (done.returncode != 0) is refused, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "web listens on 8000" in said
    assert "-e accept=downtime" in said
