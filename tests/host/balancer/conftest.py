"""The hosts behind the balancers."""

import time

import pytest
import testinfra


@pytest.fixture
def backends(request):
    return [
        testinfra.get_host(
            f"ansible://{name}",
            ansible_inventory=request.config.option.ansible_inventory,
            ssh_config=request.config.option.ssh_config,
        )
        for name in ("app1", "app2")
    ]


@pytest.fixture
def stopped(backends):
    """Stops what runs on app1 until the test is over, and both balancers have noticed."""
    backends[0].check_output("systemctl stop backend")
    yield
    backends[0].check_output(
        "systemctl start backend && timeout 20 sh -c "
        "'until curl -sf -m 1 http://127.0.0.1:8000/hits; do sleep 0.2; done'"
    )
    time.sleep(3)  # the balancer asks it again
