"""Requests made up from the site's OpenAPI document: what comes through the balancer is in it."""

import os
import uuid

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.fleet.support import STATE, Fleet

PASSWORD = "a long enough one"
EXAMPLES = 20 if os.environ.get("FULL") else 2  # of each way to make them up, an operation
# What the balancer says before the app is asked; no operation documents it.
BALANCER = {413, 414, 431}

# Operations are tests of their own, so the document is needed before there is any fixture.
if not (STATE / "env").exists():
    pytest.skip("there is no lab", allow_module_level=True)
schema = schemathesis.openapi.from_dict(Fleet.lab().get("/openapi.json").json())


@pytest.fixture(scope="module")
def tester(fleet):
    """An admin, so that every operation is open; afterwards what it left is gone."""
    with fleet.session() as session:
        session.headers["Authorization"] = f"Bearer {fleet.login()['access_token']}"
        before = session.get(f"{fleet.url}/settings", timeout=10).json()["settings"]
        user = {"username": f"tester-{uuid.uuid4().hex}", "password": PASSWORD}
        made = session.post(f"{fleet.url}/users", json={**user, "roles": ["admin"]}, timeout=10)
        assert made.status_code == 201, made.text
        yield user
        for each in before:
            address = f"{fleet.url}/settings/{each['name']}"
            put = session.put(address, json={"value": each["value"]}, timeout=10)
            assert put.status_code == 200, put.text
    # Else a job may be due in a month.
    mine = f"(SELECT id FROM users WHERE username = '{user['username']}')"
    fleet.sql(f"DELETE FROM jobs WHERE user_id = {mine};")


@pytest.fixture(scope="module")
def token(fleet, tester):
    """Return a token for an operation: a login of its own for one that may end it."""

    def login():
        with fleet.session() as session:
            answer = session.post(f"{fleet.url}/auth/login", json=tester, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    lasting = login()["access_token"]

    def token(path):
        if path not in ("/auth/logout", "/auth/refresh"):
            return lasting
        return login()["refresh_token" if path == "/auth/refresh" else "access_token"]

    return token


def depends_on_more(case):
    """No schema can say which token a page has, of what type the setting of a name is, what was
    announced or said before, or that a key was used for another request."""
    paths = ("/account/token", "/settings/{name}", "/messages")
    return case.operation.path in paths or "Idempotency-Key" in (case.headers or {})


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_an_operation_answers_as_documented(case, fleet, token):
    headers = {"Authorization": f"Bearer {token(case.operation.path)}"}
    with fleet.session() as session:
        how = {"base_url": fleet.url, "headers": headers, "session": session}
        how |= {"verify": fleet.ca, "timeout": 30}  # the session's own is not looked at
        response = case.call(**how)
        # nginx refuses a TRACE before it looks for whom it is, so it can't say what is allowed.
        if response.status_code in BALANCER or case.method == "TRACE":
            assert response.status_code in {*BALANCER, 405}
            assert response.headers["content-type"] == ["application/problem+json"], response.text
            assert response.json()["status"] == response.status_code
            return
        excluded = [positive_data_acceptance] if depends_on_more(case) else []
        case.validate_response(response, excluded_checks=excluded, transport_kwargs=how)
