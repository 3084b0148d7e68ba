"""A release takes over only when it is ready, and going back forgets what failed."""

import importlib.util
import json
import socket
import threading
from fnmatch import fnmatch
from pathlib import Path

import pytest
from ansible.module_utils import (
    release_history,
    release_probe,
    release_systemd,
    release_units,
)

MODULE = Path(__file__).parents[2] / "plugins/modules/release_activate.py"
SPEC = importlib.util.spec_from_file_location("release_activate", MODULE)
activate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(activate)

WEB = {
    "unit": "shop-web", "type": "web", "listen": 8000, "probe": "/readyz", "handover": "socket",
}  # fmt: skip
CLOCK = {
    "unit": "shop-clock", "type": "clock", "listen": None, "probe": None, "handover": "restart",
}  # fmt: skip
TEMPLATE = "[Service]\nSockets=shop-web.socket shop-web-probe@%i.socket\nRestart=always\n"


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """Stand in for systemd: remember what is asked, and say that what was started runs."""
    calls, running = [], set()

    def systemctl(*arguments, check=True):
        calls.append(arguments)
        verb, names = arguments[0], [name for name in arguments[1:] if not name.startswith("-")]
        if verb in ("start", "restart"):
            running.update(names)
        elif verb == "stop":
            running.difference_update(names)
        elif verb == "disable":
            for name in names:
                (wants / name).unlink(missing_ok=True)
        elif verb == "is-enabled":
            return "enabled"
        elif verb == "list-units":
            found = sorted(unit for unit in running if fnmatch(unit, names[0]))
            return "\n".join(f"{unit} loaded active running" for unit in found)
        return ""

    def show(unit, name):
        state = "active" if unit in running else "inactive"
        return {"ActiveState": state, "InvocationID": "one"}.get(name, "")

    monkeypatch.setattr(release_systemd, "systemctl", systemctl)
    monkeypatch.setattr(release_systemd, "show", show)
    monkeypatch.setattr(release_units, "SETTLE", 0)
    monkeypatch.setattr(
        release_systemd, "journal", lambda unit, lines=20: ["ValueError: no database"]
    )
    for name in ("SYSTEMD", "RUNTIME"):
        directory = tmp_path / name
        directory.mkdir()
        monkeypatch.setattr(release_systemd, name, directory)
    wants = tmp_path / "SYSTEMD/shop.target.wants"
    wants.mkdir()
    (tmp_path / "SYSTEMD/shop-web@.service").write_text(TEMPLATE)
    systemctl.calls, systemctl.running = calls, running
    return systemctl


@pytest.fixture
def root(tmp_path):
    """A host's directory with three releases, the last two in one environment."""
    path = tmp_path / "srv"
    for directory in ("artifacts", "envs/e1", "envs/e2"):
        (path / directory).mkdir(parents=True)
    for release, env in (("old", "e1"), ("new", "e2"), ("bad", "e2")):
        install(path, release, env)
    return path


def install(root, release, env="e2"):
    """Put a release on the host, as release_install does."""
    (root / "releases" / release).mkdir(parents=True)
    manifest = {"id": release, "env": env, "files": {f"{release}.tar.gz": "", f"{env}.tar": ""}}
    (root / "releases" / release / "manifest.json").write_text(json.dumps(manifest))
    for name in (f"{release}.json", *manifest["files"]):
        (root / "artifacts" / name).touch()


def releases(root):
    return {path.name for path in (root / "releases").iterdir()}


def go(root, release, ready=True, monkeypatch=None, warn=pytest.fail, **given):
    params = {"state": "active", "back": False, "keep": 5, "watch": 0, **given}
    if monkeypatch:
        monkeypatch.setattr(release_probe, "ask", lambda *_: None if ready else "503 not ready")
    timeout = 5 if ready else 0.3
    activation = activate.Activation("shop", root, [WEB, CLOCK], release, timeout)
    return activate.work(activation, params, warn)


def test_the_new_one_runs_before_the_old_one_stops(root, systemd, monkeypatch):
    go(root, "old", monkeypatch=monkeypatch)
    systemd.calls.clear()
    result = go(root, "new", monkeypatch=monkeypatch)
    assert result["changed"]
    assert result["previous"] == "old"
    calls = [" ".join(call) for call in systemd.calls]
    started = [i for i, call in enumerate(calls) if call.startswith("start shop-web@new")]
    stopped = [i for i, call in enumerate(calls) if call.startswith("stop shop-web@old")]
    assert started[-1] < stopped[0]
    assert (root / "current").resolve().name == "new"
    assert "shop-web@old.service" not in systemd.running
    text = (release_systemd.SYSTEMD / "shop-web.socket.d/release.conf").read_text()
    assert "Service=shop-web@new.service" in text


def test_processes_without_a_socket_never_run_twice(root, systemd, monkeypatch):
    go(root, "old", monkeypatch=monkeypatch)
    systemd.calls.clear()
    go(root, "new", monkeypatch=monkeypatch)
    calls = [" ".join(call) for call in systemd.calls]
    stopped = next(i for i, call in enumerate(calls) if call.startswith("stop shop-clock@old"))
    started = next(i for i, call in enumerate(calls) if call.startswith("start shop-clock@new"))
    assert stopped < started


def test_a_release_that_is_not_ready_never_has_the_shared_socket(root, systemd, monkeypatch):
    go(root, "old", monkeypatch=monkeypatch)
    seen = []

    def ask(*_):
        seen.append((release_systemd.RUNTIME / "shop-web@bad.service").read_text())
        return "503 not ready"

    monkeypatch.setattr(release_probe, "ask", ask)
    with pytest.raises(activate.ActivationError, match="503 not ready"):
        go(root, "bad", ready=False)
    assert seen
    assert all("shop-web.socket" not in text for text in seen)
    assert all("shop-web-probe@%i.socket" in text for text in seen)
    assert list(release_systemd.RUNTIME.iterdir()) == []
    assert (root / "current").resolve().name == "old"
    assert "shop-web@old.service" in systemd.running
    assert "shop-web@bad.service" not in systemd.running
    assert (root / "history").read_text() == "old\n"


def test_what_is_live_is_left_alone(root, systemd, monkeypatch):
    go(root, "old", monkeypatch=monkeypatch)
    assert not go(root, "old", monkeypatch=monkeypatch)["changed"]


def crossed(systemd):
    """Leave what a deploy left that crossed another one: it runs, and starts at boot."""
    systemd.running.update({"shop-web@bad.service", "shop-clock@bad.service"})
    boots = release_systemd.SYSTEMD / "shop.target.wants/shop-web@bad.service"
    boots.symlink_to("/nowhere/shop-web@.service")
    return boots


def runs(systemd):
    return sorted(name for name in systemd.running if "@" in name)


@pytest.mark.parametrize("release", ["old", "new"])
def test_what_a_crossing_deploy_left_is_ended(root, systemd, monkeypatch, release):
    go(root, "old", monkeypatch=monkeypatch)
    boots = crossed(systemd)
    systemd.calls.clear()
    assert go(root, release, monkeypatch=monkeypatch)["changed"]
    assert runs(systemd) == [f"shop-clock@{release}.service", f"shop-web@{release}.service"]
    assert not boots.is_symlink()
    calls = [" ".join(call) for call in systemd.calls]
    ended = next(i for i, call in enumerate(calls) if call.startswith("stop shop-clock@bad"))
    assert ended < calls.index(f"start shop-clock@{release}.service"), "two clocks ran"
    assert not go(root, release, monkeypatch=monkeypatch)["changed"]


def test_what_only_starts_at_boot_is_ended_too(root, systemd, monkeypatch):
    go(root, "old", monkeypatch=monkeypatch)
    boots = crossed(systemd)
    systemd.running -= {"shop-web@bad.service", "shop-clock@bad.service"}
    described = activate.Activation("shop", root, [WEB, CLOCK], None, 5).describe()
    assert described["outdated"] == ["bad"], "site.yml would leave it"
    go(root, None, monkeypatch=monkeypatch, state="restarted")
    assert not boots.is_symlink()
    assert runs(systemd) == ["shop-clock@old.service", "shop-web@old.service"]
    assert activate.Activation("shop", root, [WEB, CLOCK], None, 5).describe()["outdated"] == []


def test_going_back_ends_what_a_crossing_deploy_left(root, systemd, monkeypatch):
    go(root, "old", monkeypatch=monkeypatch)
    boots = crossed(systemd)
    with pytest.raises(activate.ActivationError):
        go(root, "new", ready=False, monkeypatch=monkeypatch)
    assert runs(systemd) == ["shop-clock@old.service", "shop-web@old.service"]
    assert not boots.is_symlink()


def test_a_process_that_waits_for_its_next_start_does_not_stay_up(root, systemd, monkeypatch):
    began = release_units.time.monotonic()

    def show(unit, name):
        elapsed = release_units.time.monotonic() - began
        state = "activating" if elapsed < 0.5 else "active"
        return {"ActiveState": state, "InvocationID": "one" if elapsed < 0.5 else "two"}[name]

    monkeypatch.setattr(release_systemd, "show", show)
    with pytest.raises(activate.ActivationError, match="stopped as it started"):
        activate.Activation("shop", root, [CLOCK], "new", 5).wait(CLOCK)


def test_going_back_forgets_what_came_after(root, systemd, monkeypatch):
    for release in ("old", "new", "bad"):
        go(root, release, monkeypatch=monkeypatch)
    go(root, "new", monkeypatch=monkeypatch, back=True)
    assert (root / "history").read_text().split() == ["old", "new"]
    described = activate.Activation("shop", root, [WEB, CLOCK], None, 5).describe()
    assert (described["live"], described["previous"]) == ("new", "old")


def test_old_releases_go_with_what_only_they_used(root, systemd, monkeypatch):
    for release in ("old", "new", "bad"):
        go(root, release, monkeypatch=monkeypatch, keep=2 if release == "bad" else 5)
    assert releases(root) == {"new", "bad"}
    assert {path.name for path in (root / "envs").iterdir()} == {"e2"}
    left = {path.name for path in (root / "artifacts").iterdir()}
    assert left == {"new.json", "new.tar.gz", "bad.json", "bad.tar.gz", "e2.tar"}


def test_releases_that_were_never_ready_go_first(root, systemd, monkeypatch):
    for release in ("old", "new"):
        go(root, release, monkeypatch=monkeypatch)
    for number in range(4):
        install(root, f"bad{number}")
        with pytest.raises(activate.ActivationError):
            go(root, f"bad{number}", ready=False, monkeypatch=monkeypatch, keep=3)
        assert len(releases(root)) == 3
        assert {"old", "new"} <= releases(root)
    assert not (root / "artifacts/bad0.json").exists()
    assert (root / "history").read_text().split() == ["old", "new"]


def test_going_back_prunes_too_where_nothing_was_switched_and_where_it_was(
    root, systemd, monkeypatch
):
    for release in ("old", "new"):
        go(root, release, monkeypatch=monkeypatch)
    # This host never left the release, another one could not take the next.
    assert go(root, "new", monkeypatch=monkeypatch, back=True, keep=2)["changed"]
    assert releases(root) == {"old", "new"}
    install(root, "bad")
    go(root, "bad", monkeypatch=monkeypatch)
    go(root, "new", monkeypatch=monkeypatch, back=True, keep=2)
    assert releases(root) == {"old", "new"}


def test_what_a_rollback_may_name_outlives_what_failed(root, systemd, monkeypatch):
    for release in ("old", "new"):
        go(root, release, monkeypatch=monkeypatch)
    install(root, "newer")
    go(root, "newer", monkeypatch=monkeypatch, keep=3)
    assert releases(root) == {"old", "new", "newer"}


def test_a_failure_to_prune_hides_no_other(root, systemd, monkeypatch):
    def refuse(path):
        raise PermissionError(f"not permitted: {path}")

    go(root, "old", monkeypatch=monkeypatch)
    monkeypatch.setattr(release_history.shutil, "rmtree", refuse)
    warnings = []
    with pytest.raises(activate.ActivationError, match="503 not ready"):
        go(root, "bad", False, monkeypatch, warnings.append, keep=1)
    assert "not permitted" in warnings.pop()
    assert go(root, "new", True, monkeypatch, warnings.append, keep=1)["live"] == "new"
    assert "not permitted" in warnings.pop()


def test_a_release_that_is_not_here_changes_nothing(root, systemd, monkeypatch):
    go(root, "old", monkeypatch=monkeypatch)
    with pytest.raises(activate.ActivationError, match="not on this host"):
        go(root, "gone", monkeypatch=monkeypatch)
    assert (root / "current").resolve().name == "old"


@pytest.mark.parametrize(
    ("answer", "said"),
    [("200 OK", None), ("503 Service Unavailable", "503 starting")],
)
def test_the_probe_goes_over_the_private_socket(tmp_path, answer, said):
    path = tmp_path / "probe.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    asked = []

    def serve():
        connection, _ = server.accept()
        asked.append(connection.recv(1000).decode())
        connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 8\r\n\r\nstarting".encode())
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert release_probe.ask(path, "/readyz") == said
    thread.join()
    server.close()
    assert asked[0].startswith("GET /readyz ")
    assert "X-Forwarded-Proto: https" in asked[0]


def test_a_socket_that_nobody_serves_is_an_answer_too(tmp_path):
    assert "FileNotFoundError" in release_probe.ask(tmp_path / "none.sock", "/readyz")


def test_the_journal_names_the_error():
    lines = ["Traceback", '  File "x.py"', "KeyError: 'DATABASE_URL'", "[INFO] Worker exiting"]
    assert "KeyError: 'DATABASE_URL'" in release_systemd.cause(lines)
    assert release_systemd.cause(["all is well"]) == ""
