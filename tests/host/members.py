"""What tests of tiers of three share: how a member of Redis is asked, and what is waited for."""

import time


def cli(host, address, *commands, port=6379):
    """Ask a Redis or a Sentinel from a host; return the words of what it says."""
    lines = "\n".join(["AUTH test-redis", *commands])
    answer = host.run(f"redis-cli -t 2 -h {address} -p {port} <<'END'\n{lines}\nEND")
    return answer.stdout.removeprefix("OK").split()


def wait(condition, seconds=60):
    """Return when a condition is true; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)
