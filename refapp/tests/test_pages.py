"""The page, its static files, the API's document and the metrics."""

import re

import pytest
from conftest import build, make_environ


def test_the_page_links_files_of_its_release(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert '/static/0123456789ab/app.css"' in page.text
    style = client.get("/static/0123456789ab/app.css")
    assert style.mimetype == "text/css"
    assert "immutable" in style.headers["Cache-Control"]


def test_another_releases_address_is_answered_but_never_kept(client):
    answer = client.get("/static/ba9876543210/app.css")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")


@pytest.mark.parametrize("path", ["../templates/index.html", "..%2f__init__.py", "%2e%2e/wsgi.py"])
def test_static_files_only(client, path):
    assert client.get(f"/static/0123456789ab/{path}").status_code == 404


def test_the_document_lists_every_operation(app, client):
    document = client.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    apart = {"/", "/metrics", "/openapi.json", "/static/<release>/<path:filename>"}
    apart |= {"/account", "/login", "/logout"}
    apart |= {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("home.")}
    rules = {rule.rule for rule in app.url_map.iter_rules()} - apart
    rules = {re.sub(r"<(?:[^<>]+:)?(\w+)>", r"{\1}", rule) for rule in rules}
    assert rules == set(document["paths"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            assert "default" not in operation["responses"], f"{path}: says nothing"
            for status, response in operation["responses"].items():
                if "$ref" in response:
                    name = response["$ref"].rpartition("/")[2]
                    response = document["components"]["responses"][name]
                if int(status) >= 400 and path != "/readyz":
                    assert list(response["content"]) == ["application/problem+json"]


def test_protected_operations_say_so(client):
    paths = client.get("/openapi.json").json["paths"]
    protected = {
        (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if isinstance(operation, dict) and operation.get("security")
    }
    assert protected == {
        ("post", "/auth/refresh"),
        ("post", "/auth/logout"),
        ("post", "/account/token"),
        ("post", "/users"),
        ("post", "/sales"),
        ("get", "/uploads"),
        ("post", "/uploads"),
        ("get", "/uploads/{upload_id}"),
        ("delete", "/uploads/{upload_id}"),
        ("post", "/uploads/{upload_id}/complete"),
        ("post", "/jobs"),
        ("get", "/jobs"),
        ("get", "/jobs/{job_id}"),
        ("post", "/jobs/{job_id}/retry"),
        ("get", "/cron"),
        ("post", "/uploads/multipart"),
        ("get", "/uploads/{upload_id}/parts"),
        ("post", "/uploads/{upload_id}/assemble"),
        ("get", "/settings"),
        ("put", "/settings/{name}"),
        ("get", "/messages"),
        ("post", "/messages"),
    }


def test_metrics_count_by_route(client):
    for _ in range(3):
        client.get("/sales/6f1e6c1e-3b50-4c3e-9f0a-1d2f7d3b9a00")
        client.get("/nothing-of-this-kind")
    text = client.get("/metrics").text
    assert 'route="/sales/<uuid:sale_id>",status="404"' in text
    assert 'route="none",status="404"' in text
    assert "6f1e6c1e" not in text
    assert "nothing-of-this-kind" not in text


def test_the_clients_address_is_the_last_hops(client):
    seen = []
    client.application.before_request_funcs.setdefault(None, []).append(
        lambda: seen.append(__import__("flask").request.remote_addr)
    )
    client.get("/livez", headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.7"})
    assert seen == ["192.0.2.7"], "what a client claims itself is not believed"


def test_ready_with_everything_there(client):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json["checks"] == {"database": "ok", "redis": "ok", "store": "ok"}
    assert answer.json["release"] == "0123456789ab"


def test_a_stranger_learns_no_setting(monkeypatch):
    app = build(monkeypatch, make_environ())
    text = "".join(app.test_client().get(p).text for p in ("/", "/whoami", "/readyz", "/metrics"))
    assert "refapp:hidden" not in text
    assert "s3-secret" not in text
