"""Every template of every role, rendered for every inventory, with no host."""

import base64
import configparser
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")  # before ansible reads it: filter plugins

from ansible.inventory.manager import InventoryManager  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.plugins.loader import filter_loader, init_plugin_loader  # noqa: E402
from ansible.template import Templar, trust_as_template  # noqa: E402
from ansible.vars.hostvars import HostVars  # noqa: E402
from ansible.vars.manager import VariableManager  # noqa: E402

init_plugin_loader()
filter_loader.add_directory(str(ROOT / "plugins/filter"))

# Which group a role's hosts are in; the others run everywhere.
TIERS = {
    "app": "app",
    "balancer": "lb",
    "cache": "cache",
    "certificates": "lb",
    "etcd": "db",
    "keepalived": "lb",
    "pgbackrest": "db",
    "postgresql": "db",
    "rclone": "storage",
    "redis": "redis",
    "swift": "storage",
}
FACTS = {
    "architecture": "x86_64",
    "default_ipv4": {"address": "192.0.2.1", "interface": "eth0"},
    "distribution": "Debian",
    "distribution_major_version": "13",
    "distribution_release": "trixie",
    "hostname": "host",
    "memtotal_mb": 4096,
    "os_family": "Debian",
    "processor_nproc": 2,
    "processor_vcpus": 2,
    "python_version": "3.13.5",
    "virtualization_tech_guest": [],
    "virtualization_type": "kvm",
}
# What earlier tasks of a role find out on the host.
LIMITS = base64.b64encode(b"Max open files            1024                 1048576").decode()
FOUND = {
    "app": {"__app_limits": {"content": LIMITS}},
    "base": {"__base_connection": {"stdout_lines": ["admin", "key"]}},
    # Given by the role that calls this one.
    "nginx": {
        "nginx_upstreams_file": "test",
        "nginx_upstreams": [
            {"name": "one", "servers": [{"address": "192.0.2.7", "port": 80}], "keepalive": 2},
            {
                "name": "two",
                "servers": [{"address": "2001:db8::7", "port": 80, "name": "a"}],
                "rest_alone": True,
            },
        ],
    },
}


def templates():
    for path in sorted(ROOT.glob("roles/*/templates/**/*")):
        if path.is_file():
            yield path.relative_to(ROOT / "roles")


def tasks(content):
    for task in content or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part))


class Renderer:
    """Renders what a role's template tasks would, from the variables that Ansible would have."""

    def __init__(self, inventory, role):
        self.role = ROOT / "roles" / role
        self.loader = DataLoader()
        self.loader.set_basedir(str(ROOT / "playbooks"))
        hosts = InventoryManager(self.loader, sources=[str(ROOT / "inventories" / inventory)])
        manager = VariableManager(self.loader, hosts)
        HostVars(hosts, manager, self.loader)  # makes itself known to the manager
        for number, each in enumerate(hosts.get_hosts(), 11):
            each.set_variable("private_address", f"192.0.2.{number}")  # prod has example names
        host = hosts.get_hosts(TIERS.get(role, "all"))[0]
        secrets = yaml.safe_load((ROOT / "inventories/prod/group_vars/all/secrets.yml").read_text())
        self.variables = {
            **self._load("defaults/main.yml"),
            **manager.get_vars(host=host),
            **{name: "0123456789abcdef" * 3 for name in secrets},
            **self._load("vars/main.yml"),
            **FOUND.get(role, {}),
            "ansible_facts": FACTS,
            "ansible_check_mode": False,
            "ansible_config_file": str(ROOT / "ansible.cfg"),
            "ansible_managed": "Ansible managed",
            "role_path": str(self.role),
            "role_name": role,
        }
        search = [str(self.role / "templates"), str(self.role)]
        self.templar = Templar(self.loader, self.variables).copy_with_new_env(
            searchpath=search, available_variables=self.variables
        )

    def _load(self, name):
        path = self.role / name
        return (self._yaml(path) or {}) if path.exists() else {}

    def _yaml(self, path):
        return self.loader.load_from_file(str(path), trusted_as_template=True)

    def _with(self, more):
        self.templar.available_variables = {**self.variables, **more}
        return self.templar

    def calls(self):
        """Every (template, variables) of the role's tasks; of a loop, one for each item."""
        for path in sorted(self.role.glob("tasks/*.yml")) + sorted(
            self.role.glob("handlers/*.yml")
        ):
            for task in tasks(self._yaml(path)):
                module = task.get("ansible.builtin.template")
                if not module:
                    continue
                more = task.get("vars", {})
                items = [None]
                if "loop" in task:
                    items = self._with(more).template(task["loop"])
                name = task.get("loop_control", {}).get("loop_var", "item")
                for item in items:
                    known = {**more, name: item} if "loop" in task else more
                    yield self._with(known).template(module["src"]), known

    def render(self, template, more):
        """Return the text."""
        content = (self.role / "templates" / template).read_text()
        return str(
            self._with(more).template(trust_as_template(content), overrides={"trim_blocks": True})
        )


def check(name, text):
    """Hold a file to its format, where that is known."""
    assert "{{" not in text, "a template was rendered to a template"
    assert "{%" not in text
    assert not re.search(r"<(bound method|function|generator|ansible)", text)
    stem = name.removesuffix(".j2")
    if stem.endswith((".yml", ".yaml")):
        assert yaml.safe_load(text)
    elif stem.endswith(".json"):
        assert json.loads(text)
    elif stem.endswith((".service", ".socket", ".target", ".timer")):
        unit = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
        unit.optionxform = str
        unit.read_string(text)
        assert "Unit" in unit
    elif stem.endswith(".conf") and "nginx" in text[:300]:
        assert text.count("{") == text.count("}")
    elif re.match(r"#!.*\b(ba|da)?sh\b", text):  # `make lint` can't read them before
        found = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


def parts(folder, template):
    """A template, and what it includes."""
    yield template
    content = (folder / template).read_text()
    for name in re.findall(r"{%-?\s*(?:include|import|from)\s+['\"]([^'\"]+)", content):
        yield from parts(folder, name)


def rendered(role, inventory):
    """Render every template of a role, each as often as its tasks do; return which there were."""
    renderer = Renderer(inventory, role)
    found = set()
    calls = list(renderer.calls())
    if role == "balancer":  # read by a lookup, into a variable
        calls.append(("upstreams.yml.j2", {}))
    for template, more in calls:
        check(template, renderer.render(template, more))
        found.update(parts(ROOT / "roles" / role / "templates", template))
    return found


@pytest.mark.parametrize("inventory", ["lab", "prod", "single"])
@pytest.mark.parametrize("role", sorted({path.parts[0] for path in templates()}))
def test_templates_render(role, inventory):
    if (role, inventory) == ("keepalived", "single"):
        pytest.skip("one host has no virtual IP")
    found = rendered(role, inventory)
    assert found, "no task of the role has a template"
    if inventory == "lab":
        known = {str(Path(*path.parts[2:])) for path in templates() if path.parts[0] == role}
        assert known - found == set(), "no task uses them"


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("web", {"StartLimitIntervalSec": "60", "StartLimitBurst": "15"}),
        # What nobody takes the place of is started again for as long as it takes.
        ("worker", {"StartLimitIntervalSec": "0", "RestartSteps": "4", "RestartMaxDelaySec": "5"}),
    ],
)
def test_processes_are_bounded_and_only_servers_are_given_up(kind, limits):
    renderer = Renderer("lab", "app")
    text = next(
        renderer.render(template, more)
        for template, more in renderer.calls()
        if template == "process@.service.j2" and more["item"]["type"] == kind
    )
    lines = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    names = ("StartLimitIntervalSec", "StartLimitBurst", "RestartSteps", "RestartMaxDelaySec")
    assert {name: lines[name] for name in names if name in lines} == limits
    assert (lines["RestartSec"], lines["MemoryMax"]) == ("0.5", "75%")
