"""Settings: what costs no request is taken at once; a restart is left to the caller, who drains."""

import re

from tests.host.entry import call, converge

SAY = {"ansible.builtin.debug": {"var": "swift_outdated"}}


def times(host, unit):
    """When a unit was started, and when its state last changed, which a reload does, too."""
    wanted = ("ActiveEnterTimestampMonotonic", "StateChangeTimestampMonotonic")
    return [host.check_output(f"systemctl show --value -p {each} {unit}") for each in wanted]


def converged(changes):
    """Converge; say whether a restart is due."""
    done = converge("swift", {}, tasks=[SAY])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (" changed=0 " not in done.stdout) is changes, done.stdout
    return re.search(r"swift_outdated: (\w+)", done.stdout)[1].lower() == "true"


def test_keys_that_an_interrupted_run_left_unread_are_read_once(host):
    host.check_output("touch /etc/swift/proxy-server.conf")
    before = times(host, "swift-proxy")
    assert not converged(changes=True)
    after = times(host, "swift-proxy")
    assert after[0] == before[0], "restarted"
    assert after[1] != before[1], "not reloaded"
    assert not converged(changes=False)
    assert times(host, "swift-proxy") == after


def test_a_restart_is_due_until_the_caller_makes_it(host):
    host.check_output("touch /etc/swift/object-server.conf")
    before = times(host, "swift-object")
    assert converged(changes=False)
    assert converged(changes=False), "the second run forgot it"
    assert times(host, "swift-object") == before
    done = call("swift", "roll")
    assert done.returncode == 0, done.stdout + done.stderr
    assert times(host, "swift-object")[0] != before[0]
    assert not converged(changes=False)


def test_memcached_reads_what_an_interrupted_run_left(host):
    host.check_output("touch /etc/memcached.conf")
    before = times(host, "memcached")
    assert not converged(changes=True)
    assert times(host, "memcached")[0] != before[0]
