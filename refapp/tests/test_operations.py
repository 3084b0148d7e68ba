"""What is wrong with a request is said with its field, on every operation of the document."""

import json
import re

import pytest
from conftest import ADMIN_PASSWORD, make_environ
from refapp.config import REQUIRED
from refapp.factory import create_app


def document():
    """The document of an application that has nothing."""
    environ = make_environ()
    app = create_app({name: environ[f"REFAPP_{name}"] for name in REQUIRED})
    return app.test_client().get("/openapi.json").json


DOCUMENT = document()
METHODS = ("get", "post", "put", "patch", "delete")
OPERATIONS = {
    f"{method.upper()} {path}": {
        **operation,
        # Those of the path are for each of its operations.
        "parameters": [
            parameter
            for parameter in [*operation.get("parameters", []), *item.get("parameters", [])]
            if "$ref" not in parameter
        ],
    }
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}


def resolve(schema):
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def body_of(operation):
    content = operation.get("requestBody", {}).get("content", {})
    return resolve(content["application/json"]["schema"]) if content else None


WITH_BODY = [name for name, operation in OPERATIONS.items() if body_of(operation)]
FIELDS = [
    pytest.param(name, field, id=f"{name} {field}")
    for name in WITH_BODY
    for field in body_of(OPERATIONS[name])["properties"]
]
PARAMETERS = [
    pytest.param(name, parameter, id=f"{name} {parameter['name']}")
    for name, operation in OPERATIONS.items()
    for parameter in operation["parameters"]
]


def wrong_for(schema):
    """Return values of other types than those that are documented."""
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    values = {"string": "seven", "integer": 7, "null": None, "object": {"a": 1}}
    # A list is wrong for a list, too: none of ours takes a null in it.
    return [[None], *(value for name, value in values.items() if name not in types)]


def address(path):
    """Return the path with an id of nothing in it, or a name where only some are known."""
    path = path.replace("{name}", "messages_open")
    return re.sub(r"\{\w+\}", "6f1e6c1e-3b50-4c3e-9f0a-1d2f7d3b9a00", path)


def send(client, operation, bearer, body=None, **options):
    method, path = operation.split(" ")
    if body is not None:
        options |= {"data": body, "content_type": "application/json"}
    return client.open(address(path), method=method, headers=bearer, **options)


def problem(answer, *statuses):
    assert answer.status_code in statuses, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert answer.json["status"] == answer.status_code
    assert "Traceback" not in answer.text
    return answer.json


@pytest.fixture
def token(client, login):
    def headers(operation):
        kind = "refresh_token" if operation == "POST /auth/refresh" else "access_token"
        return {"Authorization": f"Bearer {login[kind]}"}

    return headers


@pytest.mark.parametrize("operation", WITH_BODY)
@pytest.mark.parametrize("body", [b"{", b"", b"nan", b'{"a": 1', b"\xff"], ids=repr)
def test_a_body_that_is_no_json(client, token, operation, body):
    needed = body or OPERATIONS[operation]["requestBody"].get("required")
    answer = send(client, operation, token(operation), body)
    if needed:
        problem(answer, 400, 422)
    else:
        assert answer.status_code < 300


@pytest.mark.parametrize("operation", WITH_BODY)
@pytest.mark.parametrize("body", ["[]", "7", '"text"', "null"])
def test_a_body_that_is_no_object(client, token, operation, body):
    found = problem(send(client, operation, token(operation), body), 422, 400)
    assert "_schema" in found["errors"]["json"]


@pytest.mark.parametrize("operation", WITH_BODY)
def test_an_unknown_field_is_named(client, token, operation):
    found = problem(send(client, operation, token(operation), '{"no-such-field": 1}'), 422)
    assert "no-such-field" in found["errors"]["json"]


@pytest.mark.parametrize(
    "operation", [name for name in WITH_BODY if body_of(OPERATIONS[name]).get("required")]
)
def test_missing_fields_are_named(client, token, operation):
    required = body_of(OPERATIONS[operation])["required"]
    found = problem(send(client, operation, token(operation), "{}"), 422)
    assert set(found["errors"]["json"]) == set(required)


@pytest.mark.parametrize(("operation", "field"), FIELDS)
def test_a_field_of_another_type_is_named(client, token, operation, field):
    schema = resolve(body_of(OPERATIONS[operation])["properties"][field])
    for value in wrong_for(schema):
        body = json.dumps({field: value})
        found = problem(send(client, operation, token(operation), body), 422)
        assert field in found["errors"]["json"], value


@pytest.mark.parametrize(("operation", "parameter"), PARAMETERS)
def test_a_wrong_parameter_is_named(client, token, operation, parameter):
    name, method, path = parameter["name"], *operation.split(" ")
    headers, where = token(operation), parameter["in"]
    if where == "path":
        answer = client.open(path.replace("{" + name + "}", "no-uuid"), method=method)
        problem(answer, 404)
    elif where == "query":
        wrong = [f"?{name}=%00", f"?{name}=", f"?{name}=x&no-such-field=1"]
        for query in wrong + [""] * parameter.get("required", False):
            answer = client.open(address(path) + query, method=method, headers=headers)
            found = problem(answer, 422)["errors"]["query"]
            assert ("no-such-field" if "no-such" in query else name) in found
    elif name == "X-CSRFToken":
        problem(client.open(path, method=method, headers={name: "wrong"}), 400)
    else:
        assert where == "header"
        body = {"json": {}} if operation in WITH_BODY else {}
        answer = client.open(path, method=method, headers=headers | {name: "two words"}, **body)
        assert name in problem(answer, 422)["errors"]["headers"]


@pytest.mark.parametrize(
    "operation",
    [name for name in OPERATIONS if {"bearer": []} in OPERATIONS[name].get("security", [])],
)
def test_who_may_not_is_told_so_before_anything_else(client, operation):
    for headers in ({}, {"Authorization": "Bearer x.y.z"}):
        problem(send(client, operation, headers, "{"), 401)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_another_method_is_refused(client, operation):
    answer = client.open(address(operation.split(" ")[1]), method="PATCH")
    problem(answer, 405)
    assert operation.split(" ")[0] in answer.headers["Allow"]


def test_a_password_in_a_wrong_request_is_not_said_back(client):
    body = {"username": "admin", "password": ADMIN_PASSWORD, "more": 1}
    assert ADMIN_PASSWORD not in client.post("/auth/login", json=body).text
