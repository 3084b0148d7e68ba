"""A second run of site.yml, and a check: nothing to do, nothing disturbed."""

import pytest

from tests.fleet.support import play


def test_a_second_run_changes_nothing_and_fails_no_request(fleet):
    with fleet.load() as load:
        done = play("site.yml")
    assert fleet.hosts == sorted(host for host in done.recap if host != "localhost")
    assert done.changed == {}, done.log
    assert load.report["hosts"].keys() == set(fleet.groups["app"])


def test_a_check_of_the_converged_fleet_reports_nothing(fleet):
    done = play("site.yml", "--check")
    assert done.changed == {}, done.log
    assert set(fleet.hosts) <= done.recap.keys()


@pytest.mark.full
def test_a_check_finds_a_change_and_does_not_make_it(fleet):
    host = fleet.groups["cache"][0]
    path = "/etc/nginx/conf.d/cache.conf"
    before = fleet.ssh(host, f"cat {path}")
    try:
        fleet.ssh(host, f"echo '# by hand' >> {path}")
        done = play("site.yml", "--check")
        assert set(done.changed) == {host}
        assert fleet.ssh(host, f"tail -1 {path}") == "# by hand"
    finally:
        fleet.ssh(host, f"cat > {path}", input=before + "\n")
