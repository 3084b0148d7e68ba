"""What every role promises: its specs, its documents, its tests, and what must not be in it."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
SCENARIOS = sorted(path.parent for path in (ROOT / "molecule").glob("*/molecule.yml"))
SECRET = re.compile(r"(password|secret|token|passphrase|private_key|secret_key)s?$")
GROUPS = re.compile(r"\bgroup_names\b|\bgroups\s*[\[.|]")

each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


class Loader(yaml.SafeLoader):
    """YAML with Ansible's tags, which these tests don't need to understand."""


for tag in ("!vault", "!unsafe"):
    Loader.add_constructor(tag, lambda loader, node: loader.construct_scalar(node))


def load(path):
    return yaml.load(path.read_text(), Loader) if path.exists() else None


def specs(role):
    return load(role / "meta/argument_specs.yml")["argument_specs"]


def texts(role):
    """Every text file of a role, beside its README."""
    for path in sorted(role.rglob("*")):
        if path.is_file() and path.suffix not in {".md", ".pyc"}:
            yield path, path.read_text()


def tasks(content):
    """Every task of a list, those in blocks too."""
    for task in content or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part))


def role_tasks(role):
    for folder in ("tasks", "handlers"):
        for path in sorted((role / folder).glob("*.yml")):
            for task in tasks(load(path)):
                yield path, task


def strings(value):
    if isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def test_there_are_roles():
    assert {"app", "base", "balancer", "preflight"} <= {role.name for role in ROLES}


@each_role
def test_specs_match_defaults(role):
    options = specs(role)["main"].get("options", {})
    documented = {name: spec["default"] for name, spec in options.items() if "default" in spec}
    assert documented == (load(role / "defaults/main.yml") or {})


@each_role
def test_inputs_carry_the_role_in_their_name(role):
    for entry, spec in specs(role).items():
        assert spec["short_description"], entry
        for name, option in spec.get("options", {}).items():
            assert name.startswith(f"{role.name}_"), f"{entry}: {name}"
            assert option["description"], f"{entry}: {name} is not described"
            assert not (option.get("required") and "default" in option), f"{entry}: {name}"


@each_role
def test_every_entry_point_has_its_tasks(role):
    for entry in specs(role):
        assert (role / f"tasks/{entry}.yml").exists(), f"specs of {entry}, and no tasks"


def test_every_verb_that_a_playbook_calls_is_specified():
    """argument_specs validates tasks_from too, where the entry point has specs."""
    called = set()
    for path in [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]:
        content = load(path)
        plays = content if isinstance(content, list) else []
        for play in plays:
            lists = [play.get(part) for part in ("pre_tasks", "tasks", "post_tasks")]
            for task in (t for found in [plays, *lists] for t in tasks(found)):
                for module in ("include_role", "import_role"):
                    role = task.get(f"ansible.builtin.{module}")
                    if role and "tasks_from" in role and "{{" not in str(role):
                        called.add((role["name"], Path(role["tasks_from"]).stem))
    assert called
    missing = {(name, verb) for name, verb in called if verb not in specs(ROOT / "roles" / name)}
    assert not missing


@each_role
def test_internals_are_marked(role):
    """What an operator may set has the role's name; what he may not, `__` before it.

    Between the two is what a role gives to others: its README says so.
    """
    public = set(specs(role)["main"].get("options", {}))
    given = set(re.findall(rf"`({role.name}_\w+)`", (role / "README.md").read_text())) - public
    for path in (role / "vars").glob("*.yml"):
        for name in load(path) or {}:
            assert name.startswith(f"__{role.name}_") or name in given, f"{path.name}: {name}"
    for path, task in role_tasks(role):
        made = [task["register"]] if "register" in task else []
        made += task.get("ansible.builtin.set_fact", {})
        for name in made:
            assert name.startswith(f"__{role.name}_") or name in given, f"{path.name}: {name}"
            assert name not in public


@each_role
def test_role_has_a_readme(role):
    readme = (role / "README.md").read_text()
    assert re.search(rf"^#+ .*{role.name}", readme, re.M | re.I)


@each_role
def test_role_has_a_scenario(role):
    assert (ROOT / "molecule" / role.name / "molecule.yml").exists()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario_has_hosts_and_tests(scenario):
    """A scenario whose tests are not found passes: pytest calls that no error."""
    assert (scenario / "inventory.yml").exists()
    found = list((ROOT / "tests/host" / scenario.name).glob("test_*.py"))
    written = sum(len(re.findall(r"^def test_", path.read_text(), re.M)) for path in found)
    assert written >= 2, f"tests/host/{scenario.name} proves little"


def test_scenarios_do_not_share_a_network():
    networks = {}
    for scenario in SCENARIOS:
        for network in set(
            re.findall(r"10\.87\.\d+(?=\.)", (scenario / "inventory.yml").read_text())
        ):
            networks.setdefault(network, []).append(scenario.name)
    assert {network: names for network, names in networks.items() if len(names) > 1} == {}


@each_role
def test_role_names_no_group(role):
    found = [
        f"{path.relative_to(role)}: {match.group()}"
        for path, text in texts(role)
        for match in GROUPS.finditer(text)
    ]
    assert not found, "a role takes addresses, it does not look hosts up"


@each_role
def test_errors_are_not_ignored(role):
    for path, task in role_tasks(role):
        assert not task.get("ignore_errors"), f"{path.name}: {task['name']}"
        # A host that is only asked about something may be away: the task says what follows.
        if "delegate_to" not in task:
            assert not task.get("ignore_unreachable"), f"{path.name}: {task['name']}"


@each_role
def test_role_has_no_secret(role):
    for name, value in (load(role / "defaults/main.yml") or {}).items():
        assert not (SECRET.search(name) and value), f"{name} has a default"
    for path, text in texts(role):
        assert "PRIVATE KEY-----" not in text, path.name
        for name, value in re.findall(r"^\s*-?\s*[\"']?(\w+)[\"']?\s*[:=]\s*(\S+)", text, re.M):
            literal = re.fullmatch(r"[\"']?[A-Za-z0-9+/=_.-]{8,}[\"']?", value)
            # A name of something (a variable, a file) is no secret.
            assert not (SECRET.search(name.lower()) and literal and re.search(r"\d", value)), (
                f"{path.name}: {name}"
            )


@each_role
def test_tasks_that_carry_secrets_do_not_log_them(role):
    secrets = {
        name
        for entry in specs(role).values()
        for name, option in entry.get("options", {}).items()
        if option.get("no_log") or SECRET.search(name)
    }
    for path, task in role_tasks(role):
        body = {key: value for key, value in task.items() if key.startswith("ansible.")}
        if "ansible.builtin.uri" in body:  # hides this one itself
            body["ansible.builtin.uri"] = {**body["ansible.builtin.uri"], "url_password": ""}
        used = {
            name for text in strings(body) for name in secrets if re.search(rf"\b{name}\b", text)
        }
        only_checked = {"ansible.builtin.assert"} >= body.keys()
        calls_tasks = any("include" in module or "import" in module for module in body)
        if used and not only_checked and not calls_tasks:
            assert task.get("no_log") is True, f"{path.name}: {task['name']} shows {used}"


def test_the_production_inventory_has_no_secret():
    found = load(ROOT / "inventories/prod/group_vars/all/secrets.yml")
    assert found
    for name, value in found.items():
        assert name.startswith("secret_"), name
        assert all("CHANGE_ME" in text for text in strings(value)), f"{name} is not a placeholder"
