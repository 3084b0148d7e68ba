"""nginx as other roles find it: sound, silent, and with no site of its own."""


def test_runs_and_starts_at_boot(host):
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled
    assert host.run("nginx -t").rc == 0


def test_has_no_site_of_its_own(host):
    assert not host.socket("tcp://80").is_listening
    assert host.run("curl -s -m 2 http://127.0.0.1/").rc != 0


def test_logs_in_json_and_hides_its_version(host):
    configuration = host.check_output("nginx -T 2>/dev/null")
    assert "server_tokens off;" in configuration
    assert "log_format evenkeel escape=json" in configuration
