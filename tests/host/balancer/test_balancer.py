"""The balancer: where requests go, what they carry, and what is repeated elsewhere."""

import json
import re
import time
import uuid

import pytest

testinfra_hosts = ["ansible://lb1"]
SITE = "https://10.87.15.11"


@pytest.fixture
def ask(host):
    def curl(path, *options):
        said = host.check_output(
            f"curl -sSk -m 15 -w '\\n%{{http_code}}' {' '.join(options)} '{SITE}{path}'"
        )
        body, _, status = said.rpartition("\n")
        return int(status), body

    return curl


def test_routes_by_the_longest_path(ask):
    assert json.loads(ask("/a")[1])["port"] == 8000
    assert json.loads(ask("/socket.io/x")[1])["port"] == 8100
    assert json.loads(ask("/cached/x")[1])["port"] == 6081
    assert json.loads(ask("/uploads/x")[1])["port"] == 8080


def test_both_hosts_answer(ask):
    assert {json.loads(ask("/a")[1])["host"] for _ in range(12)} == {"app1", "app2"}


def test_a_request_carries_who_asked_and_not_what_the_client_claims(ask):
    _, body = ask("/a", "-H 'X-Forwarded-For: 6.6.6.6'", "-H 'X-Forwarded-Proto: http'")
    headers = json.loads(body)["headers"]
    assert "6.6.6.6" not in headers["x-forwarded-for"]
    assert headers["x-forwarded-proto"] == "https"
    assert len(headers["x-request-id"]) >= 16


def test_a_request_has_one_id_that_the_answer_tells(host):
    head = host.check_output(f"curl -sSki -m 5 -H 'X-Request-ID: a b;c' {SITE}/a")
    given = re.search(r"(?mi)^x-request-id: (\S+)", head)[1]
    assert json.loads(head.splitlines()[-1])["headers"]["x-request-id"] == given
    assert len(given) >= 16
    assert "a b;c" not in head


def test_another_name_is_not_served(host):
    code = "curl -sSk -m 5 -o /dev/null -w '%{http_code}'"
    assert host.check_output(f"{code} https://127.0.0.1/a") == "421"
    resolve = "--resolve www.example.com:443:127.0.0.1"
    assert host.check_output(f"{code} {resolve} https://www.example.com/a") == "200"


def websocket(seconds):
    """Return a command that opens a WebSocket, and ends it after some seconds."""
    upgrade = (
        "GET /socket.io/x HTTP/1.1\\r\\nHost: 10.87.15.11\\r\\nConnection: Upgrade\\r\\n"
        "Upgrade: websocket\\r\\n\\r\\n"
    )
    return (
        f"(printf '{upgrade}'; sleep {seconds}; printf hello; sleep 1) | "
        "timeout 10 openssl s_client -quiet -connect 10.87.15.11:443 2>/dev/null"
    )


def test_a_websocket_is_passed_on(host):
    """The backend agrees to the upgrade, and sends back the five bytes that come after it."""
    said = host.check_output(websocket(1))
    assert " 101 " in said.splitlines()[0]
    assert said.endswith("hello")


def test_an_address_may_have_so_many_websockets_and_not_one_more(host):
    held = " ".join(f"{websocket(6)} >/tmp/websocket{n} &" for n in range(3))
    try:
        ask = f"curl -sSk -m 5 --http1.1 {SITE}/socket.io/x"
        upgrade = "-H 'Connection: Upgrade' -H 'Upgrade: websocket'"
        said = host.check_output(f"{held} sleep 2; {ask} -i {upgrade}; echo; {ask}; wait")
        refused, *_, plain = said.splitlines()
        assert refused.split()[1] == "429"
        assert "application/problem+json" in said
        assert json.loads(plain)["port"] == 8100, "what is none is not counted"
        kept = host.check_output("head -qn 1 /tmp/websocket?").splitlines()
        assert [line.split()[1] for line in kept] == ["101"] * 3
    finally:
        host.check_output("rm -f /tmp/websocket?")
    assert " 101 " in host.check_output(websocket(1)).splitlines()[0], "they have ended"


def test_static_files_of_a_release_are_kept_for_ever(host):
    try:
        host.check_output("install -D -m 644 /dev/null /srv/static/abc/a.css")
        head = host.check_output(f"curl -sSki -m 5 {SITE}/static/abc/a.css")
        assert " 200" in head.splitlines()[0]
        assert "max-age=31536000, immutable" in head
        assert (
            json.loads(host.check_output(f"curl -sSk -m 5 {SITE}/static/abc/other.css"))["port"]
            == 8000
        ), "the app is not asked for what is not here"
    finally:
        host.check_output("rm -r /srv/static/abc")


def test_authorised_requests_pass_the_cache_by(ask):
    assert json.loads(ask("/cached/x", "-H 'Authorization: Bearer x'")[1])["port"] == 8000


def test_a_page_is_always_asked_of_one_cache_and_of_the_other_when_that_is_lost(ask, backends):
    """With what is cached on a lost one gone, the rest stays where it is."""

    def asked():
        answers = [ask(f"/cached/{n}") for n in range(24)]
        assert {status for status, _ in answers} == {200}
        return [(said["host"], said["port"]) for said in (json.loads(b) for _, b in answers)]

    before = asked()
    assert asked() == before
    assert set(before) == {("app1", 6081), ("app2", 6081)}
    try:
        backends[0].check_output("systemctl stop backend")
        assert set(asked()) == {("app2", 6081)}
    finally:
        backends[0].check_output(
            "systemctl start backend && timeout 20 sh -c "
            "'until curl -sf -m 1 http://127.0.0.1:6081/hits; do sleep 0.2; done'"
        )
        time.sleep(6)  # the balancer asks it again
    assert asked() == before


def test_plain_http_is_sent_to_https(host):
    head = host.check_output("curl -sS -m 5 -D - -o /dev/null http://10.87.15.11/a?b=1")
    assert " 308 " in head.splitlines()[0] or " 301 " in head.splitlines()[0]
    assert "https://" in head


def test_metrics_are_not_for_the_world(ask):
    assert ask("/metrics")[0] == 404


def test_pages_do_not_leak(ask, host):
    """The pages that nginx makes by itself say neither its name with a version nor the backend."""
    assert ask("/a", "-X TRACE")[0] == 405
    for options in ("-k -X TRACE https://10.87.15.11/a", "http://10.87.15.11:443/a"):
        page = host.check_output(f"curl -sS -i -m 5 {options}")
        assert page.splitlines()[0].split()[1] in ("400", "405")
        assert "nginx/" not in page
        assert "10.87.15.12" not in page
        assert "10.87.15.13" not in page
    assert "nginx/" not in host.check_output(f"curl -sSk -m 5 -D - -o /dev/null {SITE}/a")


def test_an_overlong_address_is_refused_and_not_passed_on(host):
    """As long as nginx's buffer and no longer: what it left unread would reset the answer."""
    said = host.check_output(
        "(printf 'GET /'; head -c 16379 /dev/zero | tr '\\0' x; sleep 2) | "
        "timeout 10 openssl s_client -quiet -connect 10.87.15.11:443 2>/dev/null"
    )
    assert " 414 " in said.splitlines()[0]
    assert "nginx/" not in said


def test_a_long_address_and_a_long_header_are_passed_on(ask):
    said = json.loads(ask("/a?" + "x" * 12_000, "-H 'X-Long: " + "y" * 12_000 + "'")[1])
    assert len(said["path"]) == 12_003
    assert len(said["headers"]["x-long"]) == 12_000


def test_an_overlong_header_gets_a_problem(host):
    said = host.check_output(
        "(printf 'GET /a HTTP/1.1\\r\\nHost: www.example.com\\r\\nX: '; "
        "head -c 16381 /dev/zero | tr '\\0' x; sleep 2) | timeout 10 openssl s_client -quiet "
        "-servername www.example.com -connect 10.87.15.11:443 2>/dev/null"
    )
    assert " 431 " in said.splitlines()[0]
    assert "application/problem+json" in said
    [body] = [line for line in said.splitlines() if line.startswith("{")]
    assert json.loads(body)["status"] == 431


def test_what_users_upload_is_taken_for_what_it_says_it_is(host):
    for method in ("GET", "PUT"):
        head = host.check_output(f"curl -sSk -m 5 -D - -o /dev/null -X {method} {SITE}/uploads/x")
        assert re.search("(?mi)^x-content-type-options: nosniff", head)
        assert re.search("(?mi)^x-request-id: ", head)


def test_no_log_says_what_an_address_is_signed_with(ask, host):
    secret = uuid.uuid4().hex
    for query in (f"X-Amz-Date=1&X-Amz-Signature={secret}&b={secret}", f"Access_Token={secret}"):
        address = f"/uploads/x?{query}"
        assert json.loads(ask(address, f"-e '{SITE}{address}'")[1])["path"] == address
    assert host.run(f"grep -rF {secret} /var/log/nginx").rc == 1
    said = [
        json.loads(line)
        for line in host.check_output("tail -n 2 /var/log/nginx/access.log").splitlines()
    ]
    shown = ["/uploads/x?X-Amz-Date=1&X-Amz-Signature=[hidden]", "/uploads/x?Access_Token=[hidden]"]
    assert [line["uri"] for line in said] == shown
    assert [line["referer"] for line in said] == [SITE + each for each in shown]


def test_the_maintenance_page_needs_no_reload(ask, host):
    try:
        host.check_output("touch /etc/nginx/maintenance.on")
        assert ask("/a")[0] == 503
    finally:
        host.check_output("rm -f /etc/nginx/maintenance.on")
    assert ask("/a")[0] == 200


def test_only_what_may_be_repeated_is_repeated(ask, backends):
    """A host that closes without an answer: both hosts see a GET, one sees a POST."""

    def hits(method, path):
        return sum(
            json.loads(backend.check_output("curl -s -m 5 http://127.0.0.1:8000/hits")).get(
                f"{method} {path}", 0
            )
            for backend in backends
        )

    assert ask("/drop/get")[0] == 502
    # A kept connection that the app closed does not count as a try.
    assert 2 <= hits("GET", "/drop/get") <= 4
    time.sleep(3)
    assert ask("/drop/post", "-X POST -d x")[0] == 502
    assert hits("POST", "/drop/post") == 1
    time.sleep(3)
    ask("/drop/keyed", "-X POST -d x -H 'Idempotency-Key: k1'")
    assert 2 <= hits("POST", "/drop/keyed") <= 4
    time.sleep(3)


def test_a_stopped_host_is_passed_over(ask, stopped):
    answers = [ask("/a") for _ in range(10)]
    answers += [ask("/a", "-X POST -d x") for _ in range(10)]
    assert {status for status, _ in answers} == {200}
    assert {json.loads(body)["host"] for _, body in answers} == {"app2"}


def test_a_frozen_host_costs_time_and_no_request(ask, backends):
    """It accepts connections and never answers; a POST with a key may go to the other host."""
    kill = "systemctl kill --kill-whom=all backend -s"
    try:
        backends[0].check_output(f"{kill} STOP")
        keyed = ("-X POST -d x", "-H 'Idempotency-Key: k2'")
        began = time.monotonic()
        answers = [ask("/a") for _ in range(6)] + [ask("/a", *keyed) for _ in range(6)]
        assert {status for status, _ in answers} == {200}
        assert {json.loads(body)["host"] for _, body in answers} == {"app2"}
        # Each would cost 4 s, were the host not left out after the first.
        assert time.monotonic() - began < 30
    finally:
        backends[0].check_output(f"{kill} CONT")
