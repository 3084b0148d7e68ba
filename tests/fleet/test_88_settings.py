"""Settings reach every process of every type on every host, one that was frozen meanwhile too."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fleet.support import eventually

PORTS = {"web": 8000, "realtime": 8100, "cpu": 8200}


@pytest.fixture
def change(fleet, client):
    """Set the banner; afterwards there is none."""

    def change(value):
        answer = client.put(f"{fleet.url}/settings/banner", json={"value": value}, timeout=10)
        assert answer.status_code == 200, answer.text

    yield change
    change("")


def answers(fleet, client, host, port, path, times=40):
    """Ask the processes behind a port of a host, on connections of their own."""
    command = (
        "curl -sS -m 5 --no-keepalive --parallel --parallel-max 20 --parallel-immediate "
        f"-H 'Connection: close' -H @- 'http://127.0.0.1:{port}{path}?[1-{times}]'"
    )
    header = f"Authorization: {client.headers['Authorization']}"
    text, found, decoder = fleet.ssh(host, command, input=header), [], json.JSONDecoder()
    while text := text.lstrip():
        answer, end = decoder.raw_decode(text)
        found.append(answer)
        text = text[end:]
    return found


def workers(fleet, host, process):
    """Processes that answer for a type on a host."""
    unit = f"$(systemctl show -p MainPID --value 'refapp-{process}@*.service')"
    return set(fleet.ssh(host, f"pgrep -P {unit}").split())


def banner(answer):
    return next(each["value"] for each in answer["settings"] if each["name"] == "banner")


def test_a_setting_is_in_effect_in_every_process_within_a_second(fleet, client, change):
    places = [(host, process) for host in fleet.groups["app"] for process in PORTS]
    wanted = {place: len(workers(fleet, *place)) for place in places}

    def ask(place):
        host, process = place
        found, end = answers(fleet, client, host, PORTS[process], "/settings"), time.monotonic() + 9
        while len({each["instance"] for each in found}) < wanted[place] and time.monotonic() < end:
            found += answers(fleet, client, host, PORTS[process], "/settings")
        return found

    change("")
    for text in ("one", "two"):
        change(text)
        time.sleep(1)
        with ThreadPoolExecutor(len(places)) as pool:
            found = dict(zip(places, pool.map(ask, places), strict=True))
        asked = [answer for each in found.values() for answer in each]
        assert {banner(answer) for answer in asked} == {text}
        assert len({answer["version"] for answer in asked}) == 1
        for (host, process), each in found.items():
            assert {(answer["host"], answer["process"]) for answer in each} == {(host, process)}
        instances = {place: len({each["instance"] for each in found[place]}) for place in places}
        assert instances == wanted
        assert text in fleet.get("/").text


def test_a_process_that_was_frozen_catches_up_within_a_second(fleet, client, change):
    host = fleet.groups["app"][0]
    pid = min(workers(fleet, host, "web"))

    def frozen():
        known = answers(fleet, client, host, 8000, "/whoami")
        return next((each["instance"] for each in known if each["pid"] == int(pid)), None)

    instance = eventually(frozen, 10)
    change("before")
    # Undone by the host itself if we can't: gunicorn kills a worker that is silent for 30 s.
    fleet.ssh(host, f"kill -STOP {pid}; (sleep 8; kill -CONT {pid}) >/dev/null 2>&1 &")
    try:
        change("meanwhile")
        time.sleep(2)
    finally:
        fleet.ssh(host, f"kill -CONT {pid}")
    time.sleep(1)

    def its_banner():
        known = answers(fleet, client, host, 8000, "/settings")
        return {banner(each) for each in known if each["instance"] == instance}

    assert eventually(its_banner, 10) == {"meanwhile"}
    assert pid in workers(fleet, host, "web"), "it was killed, not thawed"
