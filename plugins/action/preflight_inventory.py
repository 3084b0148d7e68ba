"""Find what is wrong with the inventory, on the controller and without a connection.

Secrets are looked at and never returned: a problem names the variable and its file.
"""

import difflib
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jinja2
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

PLACEHOLDER = re.compile(
    r"change.?me|replace.?me|example|placeholder|^(password|secret|todo|x+|<.*>)$", re.I
)
EXAMPLE = re.compile(  # RFC 2606 and 5737
    r"\b(?:[\w-]+\.)*example\.(?:com|org|net)\b|\b(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d+\b"
)
WORD = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b")
JINJA = jinja2.Environment(autoescape=True)
EXPRESSIONS = ("when", "that", "until", "failed_when", "changed_when")  # without braces
KEY = re.compile(r"^ *(\w+):", re.M)
SECRET_LENGTH = 12
# Roles whose required variables matter only where their tier has hosts.
TIER_OF = {
    "cache": "cache",
    "etcd": "db",
    "pgbackrest": "db",
    "postgresql": "db",
    "redis": "redis",
    "swift": "storage",
}
OF_THE_LAB = {"lab_disks", "lab_release"}  # read by lab/, of any inventory
RANDOM = "what `openssl rand -hex 24` prints"


@dataclass
class Variable:
    """One definition of a variable in the inventory."""

    name: str
    value: Any
    source: str


@dataclass
class Fleet:
    """All that the checks look at."""

    source: str = "hosts.yml"  # where hosts are written
    folder: str = "group_vars/all"
    groups: dict[str, list[str]] = field(default_factory=dict)
    addresses: dict[str, str | None] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    roles: dict[str, set[str]] = field(default_factory=dict)  # the variables that each one knows
    choices: dict[str, list] = field(default_factory=dict)  # the values that a variable may have
    required: set[str] = field(default_factory=set)  # those that a role can't do without
    derived: dict[str, str] = field(default_factory=dict)  # set by the playbooks, and where
    words: set[str] = field(default_factory=set)  # names that playbooks and templates read
    files: dict[str, str] = field(default_factory=dict)  # of the controller, by variable
    extras: list[str] = field(default_factory=list)  # variables that -e gave
    options: set[str] = field(default_factory=set)  # variables that playbooks or it itself read
    processes: dict[str, dict] = field(default_factory=dict)  # of the app, by type
    renamed: dict[str, str] = field(default_factory=dict)


def tier_problems(fleet, tiers):
    """Tiers without hosts, and groups whose names are nearly those of tiers."""
    empty = [tier for tier in tiers if not fleet.groups.get(tier)]
    for tier in empty:
        yield (
            f"tier {tier} has no hosts: add one under {tier}: in {fleet.source}, "
            f"or drop {tier} from preflight_tiers"
        )
    for group in fleet.groups.keys() - {*tiers, "all", "ungrouped"}:
        for meant in difflib.get_close_matches(group, empty, 1, 0.6):
            yield f"unknown group {group} in {fleet.source}: did you mean {meant}?"


def address_problems(fleet):
    """Hosts without an address, with a name or IPv6 for one, or with another host's."""
    real = {h: a for h, a in fleet.addresses.items() if a is None or not EXAMPLE.search(a)}
    for host, address in real.items():
        if address is None:
            yield f"{host} has no address: write ansible_host: ADDRESS at {host} in {fleet.source}"
            continue
        try:
            version = ip_address(address).version
        except ValueError:
            yield (
                f"the address of {host}, {address}, is not an IP address: write ansible_host: "
                f"ADDRESS, or private_address: ADDRESS beside the name, in {fleet.source}"
            )
            continue
        if version != 4:  # sockets, lists of servers and pg_hba.conf are written for IPv4
            yield (
                f"the address of {host}, {address}, is IPv6, and hosts reach each other by IPv4: "
                f"write private_address: IPv4 ADDRESS beside it in {fleet.source}"
            )
    for address, times in Counter(filter(None, real.values())).items():
        if times > 1:
            hosts = " and ".join(sorted(h for h, a in real.items() if a == address))
            yield f"{hosts} have one address, {address}: give each its own in {fleet.source}"


def variable_problems(fleet):
    """Variables that nothing reads: renamed, misspelled, or overridden by the playbooks."""
    own = {variable.name for variable in fleet.variables}
    known = fleet.words.union(fleet.renamed.values(), OF_THE_LAB, *fleet.roles.values())
    free = sorted(known - own - fleet.derived.keys())
    for name, source in {(v.name, v.source): None for v in fleet.variables}:
        if name.startswith(("ansible_", "secret_")):
            continue
        if name in fleet.renamed:
            yield f"{name} in {source} was renamed: write {fleet.renamed[name]}"
        elif name in fleet.derived:
            yield f"{name} in {source} has no effect: remove it, {fleet.derived[name]} sets it"
        elif name not in known:
            role = next((role for role in fleet.roles if name.startswith(f"{role}_")), None)
            if meant := resembling(name, free):
                yield f"unknown variable {name} in {source}: did you mean {meant}?"
            elif meant := resembling(name, sorted(fleet.derived)):
                yield (
                    f"unknown variable {name} in {source}: remove it; if it means {meant}, "
                    f"{fleet.derived[meant]} sets that"
                )
            elif role:
                yield (
                    f"unknown variable {name} in {source}: remove it, "
                    f"or write one of those in roles/{role}/defaults/main.yml"
                )
    for name in sorted(fleet.required - own - fleet.derived.keys()):
        yield f"{name} is missing: write {name}: VALUE into {fleet.folder}/fleet.yml"


def extra_problems(fleet):
    """Variables after -e that nothing reads: without `release`, a deploy takes the working tree."""
    own = {variable.name for variable in fleet.variables}
    known = fleet.options.union(fleet.derived, own, *fleet.roles.values())
    for name in fleet.extras:
        if not name.startswith(("ansible_", "secret_", "__")) and name not in known:
            close = difflib.get_close_matches(name, sorted(known), 1, 0.7)
            advice = f"did you mean {close[0]}?" if close else "leave it out, nothing reads it"
            yield f"unknown variable {name} after -e: {advice}"


def choice_problems(fleet):
    """Values that are none of those that a role can do something with."""
    for variable in fleet.variables:
        choices = [str(choice) for choice in fleet.choices.get(variable.name, [])]
        values = variable.value if isinstance(variable.value, list) else [variable.value]
        for value in map(str, values):
            if choices and value not in choices and "{{" not in value:
                advice = f"write one of {', '.join(choices)}"
                yield f"{variable.name} in {variable.source} is {value}: {advice}"


def resembling(name, names):
    """Return the one of `names` that was meant: a misspelled one, or one without its prefix."""
    close = difflib.get_close_matches(name, names, 1, 0.8)
    if "_" in name:
        close += [each for each in names if each.partition("_")[2] == name]
    return close[0] if close else None


def secret_problems(fleet):
    """Secrets that are read somewhere and missing, an example, or too short."""
    secrets = [variable for variable in fleet.variables if variable.name.startswith("secret_")]
    wanted = {word for word in fleet.words if word.startswith("secret_")}
    for name in sorted(wanted - {secret.name for secret in secrets}):
        yield f'{name} is missing: write {name}: "{RANDOM}" into {fleet.folder}/secrets.yml'
    for secret in secrets:
        value = "" if secret.value is None else str(secret.value).strip()
        if not value:
            fault = "is empty"
        elif PLACEHOLDER.search(value):
            fault = "is an example"
        elif len(value) < SECRET_LENGTH:
            fault = f"is shorter than {SECRET_LENGTH} characters"
        else:
            continue
        yield f"{secret.name} in {secret.source} {fault}: write {RANDOM} instead"


def strings(value):
    """Yield every string inside a value."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, str):
        yield str(value)
    elif hasattr(value, "__iter__"):
        for item in value:
            yield from strings(item)


def example_problems(fleet):
    """Names and addresses that belong to documentation."""
    for variable in fleet.variables:
        found = [match[0] for s in strings(variable.value) if (match := EXAMPLE.search(s))]
        if found and not variable.name.startswith("secret_"):
            yield f"{variable.name} in {variable.source} still has {found[0]}: write your own"


def file_problems(fleet):
    """Files of the controller that variables name and that are not there."""
    sources = {variable.name: variable.source for variable in fleet.variables}
    for name, path in fleet.files.items():
        if not EXAMPLE.search(path) and not Path(path).is_file():
            yield f"{name} in {sources[name]}: there is no file {path}: put it there, or correct it"


def port_problems(fleet, table):
    """Tiers, or processes of the app, that share a host and want one port."""
    wanted = {}
    for row in table:
        for host in fleet.groups.get(row["tier"], []):
            for port in row.get("ports", []):
                user = f"{row['name']} (tier {row['tier']})"
                wanted.setdefault((host, int(port)), []).append(user)
    for (host, port), users in wanted.items():
        if len(users) > 1:
            yield (
                f"port {port} on {host} is wanted by {' and by '.join(users)}: move a tier to "
                "another host, or change listen in app_processes"
            )


def route_problems(fleet):
    """Process types that would take each other's requests, and a site that nobody serves."""
    routes = {}
    for kind, process in fleet.processes.items():
        if process.get("listen"):
            routes.setdefault(process.get("route", "/"), []).append(kind)
    for route, kinds in routes.items():
        if len(kinds) > 1:
            yield (
                f"{' and '.join(kinds)} of app_processes have one route, {route}: write another, "
                f"such as route: /{kinds[-1]}/, for all but one"
            )
    if fleet.processes and fleet.groups.get("lb") and "/" not in routes:
        yield (
            "no process type of app_processes has the route /: "
            "write listen: PORT and no route for the one that serves the site"
        )


def names_read(thing, bare=False):
    """Yield the variables that templates read, in whatever was read from YAML.

    With `bare`, strings are expressions, which need no braces.
    """
    if isinstance(thing, dict):
        for key, value in thing.items():
            yield from names_read(value, bare=key in EXPRESSIONS)
    elif isinstance(thing, list):
        for each in thing:
            yield from names_read(each, bare)
    elif isinstance(thing, str):
        text = f"{{{{ {thing} }}}}" if bare and "{{" not in thing else thing
        with suppress(jinja2.TemplateSyntaxError):
            yield from (found.name for found in JINJA.parse(text).find_all(jinja2.nodes.Name))


def role_variables(root, load, groups):
    """Return what each role under `root` knows, its choices, and what those with hosts require."""
    known, choices, required = {}, {}, set()
    for role in sorted(path for path in root.iterdir() if path.is_dir()):
        names = known.setdefault(role.name, set())
        for defaults in role.glob("defaults/main.yml"):
            names |= set(load(defaults))
        for specs in role.glob("meta/argument_specs.yml"):
            for entry, spec in load(specs)["argument_specs"].items():
                options = spec.get("options", {})
                names |= set(options)
                choices |= {n: o["choices"] for n, o in options.items() if "choices" in o}
                used = role.name not in TIER_OF or groups.get(TIER_OF[role.name])
                if entry == "main" and used:
                    required |= {n for n, o in options.items() if o.get("required", False)}
    return known, choices, required


class ActionModule(ActionBase):
    """preflight_inventory: {tiers: [], ports: [], renamed: {}} -> problems."""

    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Read the inventory's files and return the list of problems."""
        result = super().run(tmp, task_vars)
        args = self._task.args
        sources = task_vars["hostvars"]._inventory._sources
        missing = [_show(Path(s)) for s in sources if "," not in s and not Path(s).exists()]
        if missing:  # all else would be that nothing was found there
            result["problems"] = [f"there is no inventory {name}: see -i" for name in missing]
            return result
        fleet = self._fleet(task_vars, args["renamed"])
        result["problems"] = [
            *tier_problems(fleet, args["tiers"]),
            *address_problems(fleet),
            *variable_problems(fleet),
            *extra_problems(fleet),
            *choice_problems(fleet),
            *secret_problems(fleet),
            *example_problems(fleet),
            *file_problems(fleet),
            *port_problems(fleet, args["ports"]),
            *route_problems(fleet),
        ]
        return result

    def _load(self, path):
        return self._loader.load_from_file(str(path)) or {}

    def _fleet(self, task_vars, renamed):
        hostvars, groups = task_vars["hostvars"], task_vars["groups"]
        sources = [Path(str(source)) for source in hostvars._inventory._sources]
        folders = [source if source.is_dir() else source.parent for source in sources]
        playbooks = Path(task_vars["playbook_dir"])

        variables = list(self._variables(hostvars._inventory, folders))
        own = [s for v in variables for s in strings(v.value) if "{{" in s or "{%" in s]
        for folder in folders:  # an operator's own templates
            own += [path.read_text() for path in folder.glob("**/*.j2")]
        paths = list(playbooks.glob("**/*.yml"))
        texts = [path.read_text() for path in paths]
        words = " ".join(own + texts)
        for variable in variables:
            if variable.name.startswith("secret_") and "{{" in str(variable.value):
                hosts = groups["all"][:1]
                variable.value = "".join(str(_value(hostvars, h, variable.name)) for h in hosts)

        derived = {}
        for path in sorted(playbooks.glob("group_vars/**/*.yml")):
            derived |= dict.fromkeys(self._load(path), _show(path))
        root = Path(task_vars["role_path"]).parent
        roles, choices, required = role_variables(root, self._load, groups)
        first = next((source for source in sources if source.exists()), Path("inventory"))
        return Fleet(
            source=_show(first / "hosts.yml" if first.is_dir() else first),
            folder=_show((first if first.is_dir() else first.parent) / "group_vars/all"),
            groups={str(name): [str(host) for host in hosts] for name, hosts in groups.items()},
            addresses={str(host): _value(hostvars, host, "address") for host in groups["all"]},
            variables=variables,
            roles=roles,
            choices=choices,
            required=required - {key for text in texts for key in KEY.findall(text)},
            derived=derived,
            words=set(WORD.findall(words)),
            files={
                variable.name: path
                for variable in variables
                if variable.name.endswith("_file")
                for host in groups["all"][:1]
                if (path := _value(hostvars, host, variable.name)) and Path(path).is_absolute()
            },
            extras=list(load_extra_vars(self._loader)),
            options=set(names_read([*own, *(self._load(path) for path in paths)])),
            processes=_processes(hostvars, groups.get("app", [])[:1]),
            renamed=renamed,
        )

    def _variables(self, inventory, folders):
        for thing in (*inventory.groups.values(), *inventory.hosts.values()):
            for name, value in thing.vars.items():
                if name not in ("inventory_file", "inventory_dir"):
                    yield Variable(str(name), value, f"the inventory, at {thing.name}")
        for folder in folders:
            for path in sorted(folder.glob("*_vars/**/*")):
                if path.is_file() and path.suffix in (".yml", ".yaml", ".json", ""):
                    for name, value in self._load(path).items():
                        yield Variable(str(name), value, _show(path))


def _show(path):
    """Return a path as the operator would type it."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _value(hostvars, host, name):
    """Return a host's variable, or None when it is not defined or can't be computed."""
    try:
        value = hostvars[host][name]
    except (AnsibleError, KeyError):
        return None
    return str(value)


def _processes(hostvars, hosts):
    """Return the process types of the app, as far as they can be read."""
    try:
        found = dict(hostvars[hosts[0]]["app_processes"])
    except (AnsibleError, IndexError, KeyError, TypeError, ValueError):
        return {}
    return {str(kind): process for kind, process in found.items() if isinstance(process, dict)}
