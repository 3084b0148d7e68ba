"""Requests made up from the OpenAPI document, to real processes: what comes back is in it too."""

import uuid

import pytest
import requests
import schemathesis
from amounts import amount
from conftest import ADMIN_PASSWORD, forget_settings, make_environ
from host import Host
from hypothesis import HealthCheck, settings
from refapp.config import REQUIRED
from refapp.factory import create_app
from schemathesis.specs.openapi.checks import positive_data_acceptance

PASSWORD = "a long enough one"
EXAMPLES = amount(3, 10)  # of each way to make them up, an operation


@pytest.fixture(scope="module")
def site(session_environ, directory, redis_server):
    # Computations of made-up numbers may be endless.
    server = Host(directory, session_environ | {"REFAPP_CPU_SECONDS": "1"})
    server.start()
    yield server
    server.stop()
    forget_settings(redis_server)
    errors = [line for line in server.lines if line["level"] in ("error", "critical")]
    assert errors == []


@pytest.fixture(scope="module")
def token(site):
    """Return a token for an operation, of a user whose every login an operation may end."""
    admin = site.login("admin", ADMIN_PASSWORD)["access_token"]
    name = uuid.uuid4().hex
    made = site.post(
        "/users",
        json={"username": name, "password": PASSWORD, "roles": ["admin"]},
        headers={"Authorization": f"Bearer {admin}"},
    )
    assert made.status_code == 201

    def token(path):
        if path in ("/auth/logout", "/auth/refresh"):
            found = site.login(name, PASSWORD)
            return found["refresh_token" if path == "/auth/refresh" else "access_token"]
        return admin

    return token


def document():
    """The document of an application that has nothing: operations are tests of their own."""
    environ = make_environ()
    app = create_app({name: environ[f"REFAPP_{name}"] for name in REQUIRED})
    return app.test_client().get("/openapi.json").json


schema = schemathesis.openapi.from_dict(document())


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
@pytest.mark.fleet
def test_an_operation_answers_as_documented(case, site, token):
    headers = {
        "Authorization": f"Bearer {token(case.operation.path)}",
        # Its wrong passwords are counted apart from those of other tests.
        "X-Forwarded-For": "192.0.2.99",
    }
    with requests.Session() as session:
        session.trust_env = False
        case.call_and_validate(
            base_url=site.url,
            headers=headers,
            session=session,
            excluded_checks=[positive_data_acceptance] if depends_on_more(case) else [],
        )
