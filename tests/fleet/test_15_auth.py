"""Logins and sessions across the app hosts: any of them answers, and one may be gone."""

import base64
import itertools
import json
import re
import secrets
import statistics
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.fleet.support import eventually, play, podman


def on(fleet, host, method, path, token=None, body=None):
    """Ask the app of one host, from that host; return (status, body)."""
    command = f"curl -sS -X {method} -w '\\n%{{http_code}}' http://127.0.0.1:8000{path}"
    if token:
        command += f" -H 'Authorization: Bearer {token}'"
    if body is not None:
        command += " -H 'Content-Type: application/json' --data-binary @-"
    said = fleet.ssh(host, command, input=json.dumps(body) if body is not None else "")
    text, _, status = said.rpartition("\n")
    return int(status), json.loads(text) if text else None


def refresh(fleet, token, key=None):
    headers = {"Authorization": f"Bearer {token}"}
    if key:
        headers["Idempotency-Key"] = key
    with fleet.session() as session:
        return session.post(f"{fleet.url}/auth/refresh", headers=headers, timeout=10)


def sells(fleet, token):
    with fleet.session() as session:
        return session.post(
            f"{fleet.url}/sales",
            json={"item": "auth", "amount": 1},
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid.uuid4())},
            timeout=10,
        ).status_code


@pytest.fixture
def user(fleet):
    """Someone whose logins may end without hurting another test."""
    name, password = f"user-{secrets.token_hex(6)}", secrets.token_hex(12)
    with fleet.session() as session:
        made = session.post(
            f"{fleet.url}/users",
            json={"username": name, "password": password},
            headers={"Authorization": f"Bearer {fleet.login()['access_token']}"},
            timeout=10,
        )
    assert made.status_code == 201, made.text
    return {"username": name, "password": password}


def test_a_token_of_one_host_is_good_on_the_others_and_outlives_it(fleet, user):
    first, *others = fleet.groups["app"]
    status, tokens = on(fleet, first, "POST", "/auth/login", body=user)
    assert status == 200
    for host in others:
        path = f"/uploads/{uuid.uuid4()}"
        assert on(fleet, host, "GET", path, tokens["access_token"])[0] == 404
    podman("kill", first)
    try:
        assert {sells(fleet, tokens["access_token"]) for _ in range(10)} == {201}
        answer = refresh(fleet, tokens["refresh_token"])
        assert answer.status_code == 200
        assert sells(fleet, answer.json()["access_token"]) == 201
    finally:
        podman("start", first)
        fleet.wait_all_answer()


def test_impatient_refreshes_get_one_successor(fleet, user):
    _, tokens = on(fleet, fleet.groups["app"][0], "POST", "/auth/login", body=user)
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: refresh(fleet, tokens["refresh_token"], key), range(6)))
    assert {answer.status_code for answer in answers} == {200}
    [successor] = {answer.json()["refresh_token"] for answer in answers}
    assert refresh(fleet, successor).status_code == 200


def test_a_stolen_refresh_token_ends_the_login_on_every_host(fleet, user):
    _, tokens = on(fleet, fleet.groups["app"][0], "POST", "/auth/login", body=user)
    first = refresh(fleet, tokens["refresh_token"])
    assert first.status_code == 200
    assert refresh(fleet, tokens["refresh_token"]).status_code == 401
    assert refresh(fleet, first.json()["refresh_token"]).status_code == 401
    for host in fleet.groups["app"]:
        assert on(fleet, host, "GET", f"/uploads/{uuid.uuid4()}", tokens["access_token"])[0] == 401


def test_every_host_hears_of_a_logout(fleet, user):
    hosts = fleet.groups["app"]
    _, tokens = on(fleet, hosts[0], "POST", "/auth/login", body=user)
    path, token = f"/uploads/{uuid.uuid4()}", tokens["access_token"]
    assert {on(fleet, host, "GET", path, token)[0] for host in hosts} == {404}
    assert on(fleet, hosts[-1], "POST", "/auth/logout", token, {})[0] == 204
    assert {on(fleet, host, "GET", path, token)[0] for host in hosts} == {401}


def test_guesses_are_counted_for_all_hosts_together(fleet):
    body = {"username": f"nobody-{secrets.token_hex(6)}", "password": "wrong"}
    with fleet.session() as session:
        answers = [
            session.post(f"{fleet.url}/auth/login", json=body, timeout=10) for _ in range(12)
        ]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60


def test_a_session_is_answered_by_every_host(fleet, user):
    with fleet.session() as session:

        def submit(page, path, **fields):
            text = session.get(fleet.url + page, timeout=10).text
            token = re.search(r'name="csrf_token" value="([^"]+)"', text)[1]
            data = {"csrf_token": token, **fields}
            return session.post(fleet.url + path, data=data, timeout=10, allow_redirects=False)

        wrong = session.post(f"{fleet.url}/login", data=user, timeout=10)
        assert wrong.status_code == 400, "a form of another site has no token"
        assert submit("/login", "/login", **user).status_code == 303
        [cookie] = session.cookies
        assert (cookie.name, cookie.secure, cookie.path) == ("__Host-session", True, "/")

        seen, times = set(), []

        def all_hosts():
            page = session.get(f"{fleet.url}/account", timeout=10)
            times.append(page.elapsed.total_seconds())
            assert f'id="who">{user["username"]}<' in page.text
            seen.update(host for host in fleet.groups["app"] if f">{host}," in page.text)
            return seen == set(fleet.groups["app"])

        eventually(all_hosts, 30, 0.1)
        print(f"a session: {len(times)} pages until each of {len(seen)} hosts had answered one, "
              f"{1000 * statistics.median(times):.0f} ms a page")  # fmt: skip
        assert submit("/account", "/logout").status_code == 303
        left = session.get(f"{fleet.url}/account", timeout=10, allow_redirects=False)
        assert left.status_code == 303


def test_the_journal_has_the_request_with_its_user_and_no_secret(fleet, user):
    host = fleet.groups["app"][0]
    _, tokens = on(fleet, host, "POST", "/auth/login", body=user)
    mark = uuid.uuid4().hex
    on(fleet, host, "GET", f"/uploads/{uuid.uuid4()}?token={mark}", tokens["access_token"])

    def logged():
        journal = fleet.ssh(host, "journalctl -o cat --since -2min -u 'refapp-web@*'")
        lines = [json.loads(line) for line in journal.splitlines() if line.startswith("{")]
        mine = [line for line in lines if line.get("user") == user["username"]]
        paths = {line.get("path", "").partition("/uploads/")[0] for line in mine}
        return journal if {"/auth/login", ""} <= paths else None

    journal = eventually(logged, 15)
    for secret in (user["password"], *tokens.values(), mark):
        if isinstance(secret, str) and secret != "Bearer":
            assert secret not in journal


def signer(token):
    """Return the id of the key that a token is signed by."""
    head = token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]


def write_keys(inventory, keys):
    """Have an inventory say which keys there are; the first one signs."""
    path = inventory / "group_vars/all/app.yml"
    given = ", ".join(f"'{name}': {secret}" for name, secret in keys)
    line = '  REFAPP_JWT_KEYS: "{{ {' + given + '} | to_json }}"'
    text, found = re.subn(r"^  REFAPP_JWT_KEYS: .*$", line, path.read_text(), flags=re.M)
    assert found == 1
    path.write_text(text)


@contextmanager
def at_work(fleet, tokens):
    """Let somebody sell each second while the block runs, with new tokens every ten."""
    ended, seen = threading.Event(), Counter()

    def work():
        for turn in itertools.count(1):
            seen[sells(fleet, tokens["access_token"])] += 1
            if turn % 10 == 0:
                answer = refresh(fleet, tokens["refresh_token"], str(uuid.uuid4()))
                seen[answer.status_code] += 1
                tokens.update(answer.json())
            if ended.wait(1):
                return

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield
        finally:
            ended.set()
            working.result()
    assert seen.keys() == {200, 201}, f"logged out, or failed: {seen}"


@pytest.mark.full
def test_keys_are_rotated_in_three_steps_and_nobody_is_logged_out(fleet, user, inventory):
    """The steps of docs/operations.md, without the 14 days before the last one."""
    old, new = ("first", "secret_jwt_key"), ("second", "secret_jwt_key_2")
    with (inventory / "group_vars/all/secrets.yml").open("a") as file:
        file.write(f'secret_jwt_key_2: "{secrets.token_hex(24)}"\n')
    hosts = fleet.groups["app"]

    def login(host=hosts[0]):
        return on(fleet, host, "POST", "/auth/login", body=user)[1]

    def step(*keys):
        """Let a step go out under load; return the keys that hosts sign by after it."""
        write_keys(inventory, keys)
        with fleet.load(), at_work(fleet, tokens):
            done = play("site.yml", inventory=inventory)
        print(f"{' and '.join(name for name, _ in keys)}: {done.seconds:.0f} s")
        return {signer(login(host)["access_token"]) for host in hosts}

    tokens, idle = login(), login()
    try:
        assert step(old, new) == {"first"}
        assert step(new, old) == {"second"}
        # Whoever is there gets a token by the new key in these 14 days; who is idle has none.
        tokens.update(refresh(fleet, tokens["refresh_token"]).json())
        assert {signer(tokens[f"{kind}_token"]) for kind in ("access", "refresh")} == {"second"}
        assert step(new) == {"second"}
        path = f"/uploads/{uuid.uuid4()}"
        assert {on(fleet, host, "GET", path, tokens["access_token"])[0] for host in hosts} == {404}
        assert refresh(fleet, idle["refresh_token"]).status_code == 401
    finally:
        play("site.yml")
        fleet.wait_all_answer()
    assert {signer(login(host)["access_token"]) for host in hosts} == {"first"}
