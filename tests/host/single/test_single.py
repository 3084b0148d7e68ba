"""Every tier on one host: it serves, and each tier is the real one."""

import json


def get(host, path, *options):
    return host.check_output(
        "curl -sSk --resolve site.single.internal:443:127.0.0.1 "
        f"{' '.join(options)} https://site.single.internal{path}"
    )


def test_serves_the_app_through_its_balancer(host):
    assert json.loads(get(host, "/whoami"))["host"] == "one"


def test_is_ready_with_every_data_tier(host):
    unix = host.check_output("ls /run/refapp/web-*.sock").split()[0]
    ready = json.loads(host.check_output(f"curl -sS --unix-socket {unix} http://app/readyz"))
    assert ready["checks"] == {"database": "ok", "redis": "ok", "store": "ok"}


def test_answers_the_seeded_total_from_the_cache(host):
    path = "/sales/total?item=item-1"
    first = json.loads(get(host, path))
    assert first["count"] > 0
    assert "HIT" in get(host, path, "-o /dev/null -D -")


def test_elects_its_only_member(host):
    assert host.run("curl -fsS http://10.87.30.11:8008/primary").rc == 0


def test_no_unit_failed(host):
    failed = host.check_output("systemctl --failed --plain --no-legend")
    assert failed == ""
