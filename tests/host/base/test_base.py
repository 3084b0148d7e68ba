import pytest

from tests.host.entry import converge


def sshd(host, name):
    """Value of an option for root, as the running configuration has it."""
    options = host.check_output("/usr/sbin/sshd -T -C user=root,host=localhost,addr=127.0.0.1")
    return dict(line.split(" ", 1) for line in options.splitlines())[name]


def test_sshd_takes_keys_only(host):
    assert sshd(host, "passwordauthentication") == "no"
    assert sshd(host, "kbdinteractiveauthentication") == "no"


def test_root_keeps_the_way_in_that_it_used(host):
    assert sshd(host, "permitrootlogin") in ("prohibit-password", "without-password")


def test_a_password_is_not_even_asked_for(host):
    refused = host.run(
        "! ssh -o StrictHostKeyChecking=no -o PubkeyAuthentication=no -o BatchMode=yes "
        "ada@127.0.0.1"
    )
    assert refused.rc == 0
    assert "Permission denied (publickey)" in refused.stderr


def test_an_operator_has_keys_and_sudo(host):
    keys = host.file("/home/ada/.ssh/authorized_keys")
    assert (keys.user, keys.mode) == ("ada", 0o600)
    assert host.check_output("su ada -c 'sudo -n id -un'") == "root"


def test_nobody_else_has_sudo_without_a_password(host):
    assert host.run("su -s /bin/sh daemon -c 'sudo -n id'").rc != 0


def test_an_operator_has_no_password(host):
    assert host.check_output("getent shadow ada").split(":")[1] == "*"


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("db1", {"10.87.11.51"}),
        ("storage.internal", {"10.87.11.61", "10.87.11.62"}),
    ],
)
def test_hosts_of_the_fleet_have_names(host, name, addresses):
    found = host.check_output(f"getent ahostsv4 {name}")
    assert {line.split()[0] for line in found.splitlines()} == addresses


def test_the_hosts_own_name_still_resolves(host):
    assert host.run("getent hosts localhost").rc == 0


def test_services_get_the_file_limit(host):
    allowed = int(host.check_output("systemd-run --quiet --pipe --wait sh -c 'ulimit -Hn'"))
    hard = int(host.check_output("awk '/Max open files/ {print $5}' /proc/1/limits"))
    assert allowed == min(65536, hard)


def test_the_journal_is_kept_and_bounded(host):
    assert host.file("/var/log/journal").is_directory
    settings = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "SystemMaxUse=1G" in settings.splitlines()


def test_kernel_parameters_are_read_in_order(host):
    """The inventory's value stands, and the file is one that systemd understands."""
    settings = host.check_output("systemd-analyze cat-config sysctl.d").splitlines()
    ours = [line for line in settings if line.startswith("vm.swappiness")]
    assert ours == ["vm.swappiness = 5"]
    check = host.run("/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/60-evenkeel.conf")
    assert "parse" not in check.stderr.lower()


def test_only_security_fixes_come_by_themselves(host):
    config = host.check_output("apt-config dump Unattended-Upgrade::Origins-Pattern")
    origins = [line for line in config.splitlines() if ":: " in line]
    assert len(origins) == 1
    assert "Debian-Security" in origins[0]
    assert host.package("unattended-upgrades").is_installed
    assert host.check_output("apt-config shell x APT::Periodic::Unattended-Upgrade") == "x='1'"


def test_a_container_has_no_time_daemon(host):
    assert not host.package("chrony").is_installed


def test_an_interrupted_installation_was_finished(host):
    state = host.check_output("dpkg-query --show --showformat '${db:Status-Status}' half")
    assert state == "installed"


def test_no_unit_failed(host):
    failed = host.check_output("systemctl list-units --failed --plain --no-legend")
    assert failed == ""


def test_who_is_operator_no_more_loses_keys_and_sudo(host):
    mine = host.ansible.get_variables()
    ada = mine["base_operators"]
    both = {"base_operators": [*ada, {"name": "eve", "keys": ada[0]["keys"]}]}
    done = converge("base", both, hosts=mine["inventory_hostname"])
    assert done.returncode == 0, done.stdout
    assert host.file("/home/eve/.ssh/authorized_keys").exists
    for changed in (True, False):
        done = converge("base", {"base_operators": ada}, hosts=mine["inventory_hostname"])
        assert done.returncode == 0, done.stdout
        assert (" changed=0 " not in done.stdout) is changed, done.stdout
        assert not host.file("/home/eve/.ssh/authorized_keys").exists
        assert host.run("su eve -c 'sudo -n id'").rc != 0
        assert host.file("/home/ada/.ssh/authorized_keys").size > 0


def test_who_connects_is_not_locked_out(host):
    """As if root had been an operator, which is how these tests connect."""
    mine = host.ansible.get_variables()
    rules = "/etc/sudoers.d/evenkeel-operators"
    before = host.check_output(f"cat {rules}")
    try:
        host.check_output(f"echo 'root ALL=(ALL:ALL) NOPASSWD: ALL' >> {rules}")
        done = converge("base", {}, hosts=mine["inventory_hostname"])
        assert done.returncode != 0
        assert "connect as another one" in " ".join(done.stdout.split())
    finally:
        host.check_output(f"cat > {rules} <<'END'\n{before}\nEND")


def test_options_of_sshd_that_an_interrupted_run_left_unloaded_are_loaded_once(host):
    name = host.ansible.get_variables()["inventory_hostname"]
    loaded = "systemctl show ssh --value --property=StateChangeTimestampMonotonic"
    host.check_output("touch /etc/ssh/sshd_config.d/10-evenkeel.conf")
    for loads in (True, False):
        before = host.check_output(loaded)
        done = converge("base", {}, hosts=name)
        assert done.returncode == 0, done.stdout
        assert (host.check_output(loaded) != before) is loads, done.stdout
    assert " changed=0 " in done.stdout
