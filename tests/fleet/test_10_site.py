"""The site as clients see it, through the virtual IP."""

import json
import re
import secrets
import socket
import ssl
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.fleet.support import eventually, play


@pytest.fixture(scope="module")
def token(fleet):
    return fleet.login()["access_token"]


@pytest.fixture
def client(fleet, token):
    with fleet.session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        yield session


def handshake(fleet, change=lambda context: None):
    address = fleet.url.removeprefix("https://")
    context = ssl.create_default_context(cafile=fleet.ca)
    change(context)
    with (
        socket.create_connection((address, 443), 5) as plain,
        context.wrap_socket(plain, server_hostname=address) as wrapped,
    ):
        return wrapped.version(), wrapped.selected_alpn_protocol()


def test_tls_is_recent_and_signed_by_our_authority(fleet):
    assert handshake(fleet)[0] == "TLSv1.3"
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(fleet.url, timeout=5)  # without our CA


def test_old_tls_is_refused(fleet):
    def old(context):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(fleet, old)


def test_http2_is_offered_and_works(fleet):
    assert handshake(fleet, lambda c: c.set_alpn_protocols(["h2", "http/1.1"]))[1] == "h2"
    seen = subprocess.run(
        ["curl", "-sS", "--http2", "--cacert", fleet.ca, "-o", "/dev/null",
         "-w", "%{http_version} %{http_code}", f"{fleet.url}/whoami"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert seen == "2 200"


def test_http_is_redirected(fleet):
    plain = fleet.url.replace("https:", "http:")
    answer = requests.get(f"{plain}/whoami?a=1", allow_redirects=False, timeout=5)
    assert answer.status_code in (301, 308)
    assert answer.headers["Location"] == f"{fleet.url}/whoami?a=1"


def test_answers_carry_what_protects_browsers(fleet):
    answer = fleet.get("/")
    assert answer.status_code == 200
    assert int(re.search(r"max-age=(\d+)", answer.headers["Strict-Transport-Security"])[1]) > 86400
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src" in answer.headers["Content-Security-Policy"]


def test_text_is_compressed_for_those_who_ask(fleet):
    packed = fleet.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["Vary"]
    plain = fleet.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nowhere", 404), ("/sales/not-a-uuid", 404), ("/sales/total", 422), ("/%ff%00", 400)],
    ids=["unknown", "malformed", "invalid", "impossible"],
)
def test_errors_do_not_leak(fleet, path, status):
    answer = fleet.get(path)
    assert answer.status_code == status
    said = str(answer.headers) + answer.text
    assert not re.search(r"nginx/\d|gunicorn/|Werkzeug|Traceback|File \"|/srv/|10\.87\.", said)


def test_errors_of_the_app_are_problems(fleet):
    answer = fleet.get("/nowhere")
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["instance"]) == (404, "/nowhere")
    assert problem["request_id"] == answer.headers["X-Request-ID"]


def test_a_wrong_method_or_body_is_a_problem_too(fleet, client):
    assert client.delete(f"{fleet.url}/whoami", timeout=5).status_code == 405
    for body, status in (("{", 400), ('{"item": "a"}', 422), ('{"item": "a", "amount": 0}', 422)):
        answer = client.post(
            f"{fleet.url}/sales",
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=5,
        )
        assert answer.status_code == status, body
        assert answer.headers["Content-Type"].startswith("application/problem+json")


def test_every_request_has_an_id_of_its_own(fleet):
    seen = {fleet.get("/whoami").headers["X-Request-ID"] for _ in range(5)}
    assert len(seen) == 5
    assert all(len(found) >= 16 for found in seen)


@pytest.mark.parametrize("given", ["Root=1-5f84c3a1-0b", "x" * 128], ids=["sign", "long"])
def test_a_request_keeps_the_id_it_came_with(fleet, given):
    answer = fleet.get("/nowhere", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given, "the balancer's"
    assert answer.json()["request_id"] == given, "the app's"


def test_every_app_host_answers(fleet):
    hosts, releases = fleet.answering(60)
    assert hosts == set(fleet.groups["app"])
    assert len(releases) == 1
    assert len(hosts) == 3


def test_metrics_and_caches_are_not_for_the_world(fleet, client):
    assert fleet.get("/metrics").status_code in (403, 404)
    purge = client.request("PURGE", f"{fleet.url}/sales/total?item=item-1", timeout=5)
    assert purge.status_code in (400, 403, 405)


def test_a_total_is_cached_and_purged_by_a_write(fleet, client):
    item = f"cached-{secrets.token_hex(6)}"
    path = f"/sales/total?item={item}"
    # What was never sold is nobody's to keep.
    for _ in range(2):
        never = fleet.get(path)
        assert never.json() == {"item": item, "count": 0, "total": 0}
        assert never.headers["X-Cache"] != "HIT"
    for count in (1, 2, 3):
        sale = client.post(f"{fleet.url}/sales", json={"item": item, "amount": 5}, timeout=5)
        assert sale.status_code == 201
        # Far below the 15 s that the cache may keep an answer: it was purged.
        eventually(lambda n=count: fleet.get(path).json()["total"] == 5 * n, 3, 0.05)
    eventually(lambda: fleet.get(path).headers["X-Cache"] == "HIT", 3)


def test_what_is_not_cacheable_is_not_cached(fleet):
    assert fleet.get("/whoami").headers.get("X-Cache") != "HIT"
    assert fleet.get("/whoami").headers["Cache-Control"] == "no-store"


def test_the_seeded_sales_are_there(fleet):
    total = fleet.get("/sales/total?item=item-1").json()
    assert total["count"] > 0
    assert int(fleet.sql("SELECT count(*) FROM sales WHERE item LIKE 'item-%';")[0][0]) >= 100_000


def test_login_and_refresh(fleet):
    tokens = fleet.login()
    with fleet.session() as session:
        refresh = session.post(
            f"{fleet.url}/auth/refresh",
            headers={"Authorization": f"Bearer {tokens['refresh_token']}"},
            timeout=5,
        )
        assert refresh.status_code == 200
        for given, status in (
            (refresh.json()["access_token"], 201),
            (tokens["refresh_token"], 401),
        ):
            sale = session.post(
                f"{fleet.url}/sales",
                json={"item": "login", "amount": 1},
                headers={"Authorization": f"Bearer {given}"},
                timeout=5,
            )
            assert sale.status_code == status


def test_without_a_token_nothing_is_sold(fleet):
    item = f"anonymous-{secrets.token_hex(6)}"
    with fleet.session() as session:
        for header in ({}, {"Authorization": "Bearer x.y.z"}):
            sale = session.post(
                f"{fleet.url}/sales", json={"item": item, "amount": 1}, headers=header, timeout=5
            )
            assert sale.status_code == 401
        wrong = session.post(
            f"{fleet.url}/auth/login", json={"username": "admin", "password": "x"}, timeout=5
        )
        assert wrong.status_code == 401
    assert fleet.sql(f"SELECT count(*) FROM sales WHERE item = '{item}';") == [["0"]]


def test_a_key_is_applied_once_even_at_the_same_time(fleet, token):
    key, item = str(uuid.uuid4()), f"once-{secrets.token_hex(6)}"

    def send(amount):
        with fleet.session() as session:
            return session.post(
                f"{fleet.url}/sales",
                json={"item": item, "amount": amount},
                headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
                timeout=10,
            )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, [7] * 16))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert send(8).status_code == 422
    assert fleet.sql(f"SELECT amount FROM sales WHERE item = '{item}';") == [["7"]]


def test_an_upload_goes_to_the_object_store(fleet, client):
    content = secrets.token_bytes(300_000)
    made = client.post(
        f"{fleet.url}/uploads",
        json={"filename": "a b.bin", "content_type": "application/octet-stream",
              "size": len(content)},
        timeout=10,
    )  # fmt: skip
    assert made.status_code == 201, made.text
    upload = made.json()
    one = f"{fleet.url}/uploads/{upload['id']}"
    assert client.post(f"{one}/complete", timeout=10).status_code == 409, "nothing is there yet"

    put = upload["upload"]
    assert put["url"].startswith(fleet.url + "/"), "clients can't reach another address"
    with fleet.session() as anonymous:
        sent = anonymous.put(put["url"], data=content, headers=put["headers"], timeout=20)
        assert sent.status_code in (200, 201), sent.text
        assert client.post(f"{one}/complete", timeout=10).json()["status"] == "complete"
        found = client.get(one, timeout=10).json()
        assert anonymous.get(found["get_url"], timeout=20).content == content
        unsigned = found["get_url"].split("?")[0]
        assert anonymous.get(unsigned, timeout=10).status_code in (400, 401, 403)
        assert anonymous.put(unsigned, data=b"x", timeout=10).status_code in (400, 401, 403)
    assert fleet.get(f"/uploads/{upload['id']}").status_code == 401
    rows = fleet.sql(
        f"SELECT size, completed_at IS NOT NULL FROM uploads WHERE id = '{upload['id']}';"
    )
    assert rows == [[str(len(content)), "t"]]


def test_the_document_describes_the_api(fleet):
    document = fleet.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    for path, method in (
        ("/whoami", "get"), ("/readyz", "get"), ("/sales", "post"), ("/sales/total", "get"),
        ("/uploads", "post"), ("/auth/login", "post"), ("/auth/refresh", "post"),
    ):  # fmt: skip
        operation = document["paths"][path][method]
        assert any(status.startswith("2") for status in operation["responses"]), path
    known = document["components"]
    for reference in re.findall(r'"#/components/(\w+)/([^"]+)"', json.dumps(document)):
        assert reference[1] in known[reference[0]], reference


def test_static_files_of_the_release_are_kept_by_browsers(fleet):
    page = fleet.get("/").text
    path = re.search(r"/static/[0-9a-f]{12}/app\.css", page)[0]
    answer = fleet.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/css")
    assert "immutable" in answer.headers["Cache-Control"]
    missing = fleet.get(path.replace("app.css", "missing.css"))
    assert missing.status_code == 404
    assert "immutable" not in missing.headers.get("Cache-Control", "")
    assert fleet.get("/static/../../../etc/passwd").status_code in (400, 404)


def test_the_maintenance_page_needs_no_reload(fleet):
    balancers = fleet.groups["lb"]
    try:
        for host in balancers:
            fleet.ssh(host, "touch /etc/nginx/maintenance.on")
        answer = fleet.get("/whoami")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        for host in balancers:
            fleet.ssh(host, "rm -f /etc/nginx/maintenance.on")
    assert fleet.get("/whoami").status_code == 200


def test_the_balancers_log_says_who_and_how_long(fleet):
    wanted = str(uuid.uuid4())
    assert fleet.get("/whoami", headers={"X-Request-ID": wanted}).status_code == 200
    given = fleet.get(f"/whoami?mark={wanted}").headers["X-Request-ID"]

    def logged():
        for host in fleet.groups["lb"]:
            lines = fleet.ssh(host, f"grep -h {wanted} /var/log/nginx/access.log || true")
            found = [json.loads(line) for line in lines.splitlines() if given in line]
            if found:
                return found[0]
        return None

    line = json.dumps(eventually(logged, 10))
    assert re.search(r'"[^"]*upstream[^"]*":', line)
    assert "10.87.0." in line


def test_status_shows_every_host(fleet):
    output = play("status.yml").output
    release = next(iter(fleet.releases().values()))
    for host in fleet.hosts:
        assert re.search(rf"\b{host}\b", output), host
    for host in fleet.groups["app"]:
        assert re.search(rf"\b{host}\b.*\b{release}", output), f"{host} without its release"
