"""Balancing methods other than sticky_cookie: which host gets a request.

The balancer has the default; the others' line takes its place, as the role would write it.
"""

import json
import time
from pathlib import Path

import pytest
import yaml

testinfra_hosts = ["ansible://lb1"]
ROLE = Path(__file__).resolve().parents[3] / "roles/balancer"
UPSTREAMS = "/etc/nginx/conf.d/balancer-upstreams.conf"
NAME = "www.example.com"


@pytest.fixture(scope="module", autouse=True)
def peace():
    time.sleep(3)  # a host that an earlier test froze is asked again


@pytest.fixture
def method(request, host):
    line = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__balancer_balance"][request.param]
    line = f"    {line};" if line else ""
    host.check_output(
        f"cp {UPSTREAMS} /root/upstreams && sed -i 's/^    least_conn;$/{line}/' {UPSTREAMS} && "
        "nginx -t -q && systemctl reload nginx && sleep 1"
    )
    yield request.param
    host.check_output(f"mv /root/upstreams {UPSTREAMS} && systemctl reload nginx && sleep 1")


def ask(client="127.0.0.1"):
    """Return the command that asks for a page from an address of the loopback."""
    return (
        f"curl -fsSk -m 15 --interface {client} --resolve {NAME}:443:127.0.0.1 https://{NAME}/a; "
        "echo;"
    )


def hosts(said):
    return [json.loads(line)["host"] for line in said.splitlines() if line]


def test_least_connections_passes_a_busy_host_by(host):
    slow = ask().replace("/a;", "/sleep/3;")
    said = host.check_output(f"({slow}) > /tmp/slow & sleep 0.7; {ask() * 6} wait; cat /tmp/slow")
    *others, busy = hosts(said)
    assert len(others) == 6
    assert set(others) == {"app1", "app2"} - {busy}


@pytest.mark.parametrize("method", ["round_robin"], indirect=True)
def test_round_robin_takes_turns(host, method):
    answers = hosts(host.check_output(ask() * 12))
    assert sorted(answers) == ["app1"] * 6 + ["app2"] * 6


@pytest.mark.parametrize("method", ["ip_hash"], indirect=True)
def test_ip_hash_gives_a_client_one_host(host, method):
    clients = [f"127.0.0.{number}" for number in range(2, 18)]
    answers = hosts(host.check_output("".join(ask(client) * 2 for client in clients)))
    assert answers[::2] == answers[1::2]
    assert set(answers) == {"app1", "app2"}
