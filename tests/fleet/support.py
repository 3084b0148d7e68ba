"""A running lab as the tests see it: its hosts, its site, its database, and the playbooks on it."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from plugins.load import Running, running

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".lab"
LOGS = STATE / "logs"
ENV = dict(
    line.split("=", 1)
    for line in ((STATE / "env").read_text() if (STATE / "env").exists() else "").splitlines()
)
LAB = ROOT / ENV.get("LAB_INVENTORY", "inventories/lab")
PSQL = "cd /; runuser -u postgres -- psql -X -qAt -F '|' -d refapp -v ON_ERROR_STOP=1 -f -"
numbers = itertools.count(1)


class PlayError(AssertionError):
    """A playbook did not end as the test expects; the message holds the end of its output."""


@dataclass
class Play:
    """What a playbook said, and how it ended."""

    code: int
    output: str
    seconds: float
    log: Path

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Counts by host, from the recap."""
        return {
            host: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in re.findall(r"^(\S+)\s+: (ok=\d+ .*)$", self.output, re.M)
        }

    @property
    def changed(self) -> dict[str, int]:
        """Hosts on which something changed."""
        return {host: found["changed"] for host, found in self.recap.items() if found["changed"]}

    @property
    def tasks(self) -> list[str]:
        """Titles of the tasks that ran, `role : task` for those of roles."""
        return re.findall(r"^(?:TASK|RUNNING HANDLER) \[(.*?)\] \*", self.output, re.M)

    def tail(self, lines: int = 40) -> str:
        """Return the tasks that changed or failed, and the end."""
        return f"exit code {self.code}, all of it in {self.log}\n" + "\n".join(
            self.output.splitlines()[-lines:]
        )


def play(
    playbook: str,
    *arguments: str,
    inventory: Path = LAB,
    code: int | None = 0,
    timeout: float = 1500,
) -> Play:
    """Run a playbook as an operator does; `code` is the exit code it must have, None for any."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"fleet-{next(numbers):02}-{Path(playbook).stem}.log"
    began = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            ["ansible-playbook", f"playbooks/{playbook}", "-i", str(inventory), *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_STDOUT_CALLBACK": "default",  # the recap is read
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
    found = Play(done.returncode, log.read_text(), time.monotonic() - began, log)
    if code is not None and found.code != code:
        raise PlayError(f"{playbook} {' '.join(arguments)}: {found.tail()}")
    return found


def lab(*arguments: str) -> None:
    """Run the lab's own command."""
    subprocess.run(["python", "-m", "lab", *arguments], cwd=ROOT, check=True, timeout=600)


def podman(*arguments: str, timeout: float = 60) -> str:
    """Run podman, as somebody who pulls a plug."""
    return subprocess.run(
        ["podman", *arguments], check=True, capture_output=True, text=True, timeout=timeout
    ).stdout


def eventually(check, seconds: float = 30, pause: float = 0.3):
    """Return the first true answer of `check`; fail with its last one when none comes in time."""
    limit = time.monotonic() + seconds
    while True:
        try:
            answer = check()
        except (OSError, subprocess.SubprocessError) as error:
            answer, last = None, error
        else:
            last = answer
        if answer:
            return answer
        if time.monotonic() > limit:
            raise AssertionError(f"not so within {seconds:.0f} s; last: {last!r}")
        time.sleep(pause)


@dataclass
class Fleet:
    """One inventory, converged."""

    url: str
    ca: str
    inventory: Path = LAB
    groups: dict[str, list[str]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, inventory: Path, url: str, ca: str) -> Fleet:
        """Read hosts, groups and addresses of an inventory."""
        listed = json.loads(
            subprocess.run(
                ["ansible-inventory", "-i", str(inventory), "--list"],
                cwd=ROOT, check=True, capture_output=True, text=True,
            ).stdout
        )  # fmt: skip
        variables = listed["_meta"]["hostvars"]
        groups = {
            name: group["hosts"]
            for name, group in listed.items()
            if isinstance(group, dict) and group.get("hosts")
        }
        addresses = {name: found["ansible_host"] for name, found in variables.items()}
        return cls(url, ca, inventory, groups, addresses)

    @classmethod
    def lab(cls) -> Fleet:
        """Return the fleet that `make up` left running."""
        return cls.read(LAB, ENV["LAB_URL"], ENV["LAB_CA"])

    @property
    def hosts(self) -> list[str]:
        """Every host."""
        return sorted(self.addresses)

    @property
    def secrets(self) -> dict[str, str]:
        """The operator's secrets."""
        text = (self.inventory / "group_vars/all/secrets.yml").read_text()
        return dict(re.findall(r'^(\w+): "?([^"\s#]+)', text, re.M))

    @property
    def admin_password(self) -> str:
        """The password of refapp's first user."""
        return next(value for name, value in self.secrets.items() if "admin" in name)

    def ssh(
        self, host: str, command: str, timeout: float = 30, user: str = "root", **options: Any
    ) -> str:
        """Run a command on a host; raise unless it ends well."""
        return subprocess.run(
            ["ssh", "-F", str(STATE / "ssh_config"), "-l", user, self.addresses[host], command],
            check=True, capture_output=True, text=True, timeout=timeout, **options,
        ).stdout.strip()  # fmt: skip

    def leader(self) -> str:
        """The host that PostgreSQL's members call their leader."""

        def ask() -> str | None:
            for host in self.groups["db"]:
                url = f"http://{self.addresses[host]}:8008/primary"
                with suppress(subprocess.SubprocessError):  # a host that is down
                    self.ssh(host, f"curl -sf -m 3 -o /dev/null {url}", timeout=10)
                    return host
            return None

        return eventually(ask, 60)

    def primary(self) -> str:
        """The host that Sentinel names as Redis's primary."""

        def ask() -> str | None:
            names = {address: name for name, address in self.addresses.items()}
            for host in self.groups["redis"]:
                with suppress(subprocess.SubprocessError):
                    question = "SENTINEL get-master-addr-by-name evenkeel"
                    said = self.redis(host, question, port=26379).split()
                    return names[next(word for word in said if word in names)]
            return None

        return eventually(ask, 30)

    def redis(self, host: str, *commands: str, port: int = 6379) -> str:
        """Ask a Redis or a Sentinel on its host; return what it says, without the greeting."""
        lines = "\n".join([f"AUTH {self.secrets['secret_redis_password']}", *commands])
        said = self.ssh(host, f"redis-cli -t 2 -h {self.addresses[host]} -p {port}", input=lines)
        return said.removeprefix("OK").strip()

    def sql(self, query: str) -> list[list[str]]:
        """Ask the database, on its leader's host: its port is closed to us."""
        text = self.ssh(self.leader(), PSQL, input=query)
        return [line.split("|") for line in text.splitlines()]

    def psql(self) -> subprocess.Popen[str]:
        """Return a session with the database that lasts until its standard input is closed."""
        command = ["ssh", "-F", str(STATE / "ssh_config"), "-l", "root"]
        return subprocess.Popen(
            [*command, self.addresses[self.leader()], PSQL],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def scans(self, table: str) -> int:
        """How often a table was read. PostgreSQL itself counts; a connection tells it late."""
        time.sleep(11)  # one that has nothing to do, after ten seconds
        found = self.sql(
            "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables "
            f"WHERE relname = '{table}';"
        )
        return int(found[0][0])

    def session(self) -> requests.Session:
        """Return a client of the site that trusts its authority."""
        session = requests.Session()
        session.verify = self.ca
        session.trust_env = False
        return session

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET on a connection of its own."""
        with self.session() as session:
            return session.get(self.url + path, **{"timeout": 10, **options})

    def login(self) -> dict[str, str]:
        """Return the tokens of the admin."""
        with self.session() as session:
            answer = session.post(
                f"{self.url}/auth/login",
                json={"username": "admin", "password": self.admin_password},
                timeout=10,
            )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def authorized(self) -> requests.Session:
        """Return a client of the site that is logged in as the admin."""
        session = self.session()
        session.headers["Authorization"] = f"Bearer {self.login()['access_token']}"
        return session

    def releases(self) -> dict[str, str]:
        """The release that each app host calls current."""
        return {
            host: self.ssh(host, "basename $(readlink -f /srv/refapp/current)")
            for host in self.groups["app"]
        }

    def answering(self, requests_sent: int = 40) -> tuple[set[str], set[str]]:
        """Hosts and releases that answer through the site."""
        seen = [self.get("/whoami").json() for _ in range(requests_sent)]
        return {found["host"] for found in seen}, {found["release"] for found in seen}

    def wait_all_answer(self, seconds: float = 60) -> None:
        """Return when every app host takes requests again."""
        eventually(lambda: self.answering()[0] == set(self.groups["app"]), seconds)

    @contextmanager
    def load(
        self, *, unkeyed: float = 0.5, prove: bool = True, **options: Any
    ) -> Iterator[Running]:
        """Put the load of the acceptance tests on the site while the block runs.

        24 clients that never repeat a request: GETs of /whoami and of a cached total, and
        sales with and without a key. Afterwards not one request may have failed, and the
        database must hold every sale that was accepted exactly once.
        """
        with running(
            self.url,
            gets=["/whoami", "/sales/total?item=item-1"],
            ca=self.ca,
            sales_password=self.admin_password,
            **{"clients": 24, "rate": 60, "sales": 0.2, "sales_unkeyed": unkeyed, **options},
        ) as load:
            yield load
            load.stop()
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"load-{load.report['run']}.json").write_text(json.dumps(load.report, indent=1))
        self.verify_sales(load.report)
        if prove:
            self.prove(load)

    @staticmethod
    def prove(load: Running) -> None:
        """Not one request failed, and there were enough to say so."""
        assert load.report["failed"] == 0, load.summary
        assert load.report["counts"]["get"] > 50
        assert load.report["counts"]["post_keyed"] > 5

    def verify_sales(self, report: dict[str, Any]) -> None:
        """Hold the database to what the site accepted: each once, and nothing twice."""
        run = report["run"]
        rows = {
            item: int(count)
            for item, count in self.sql(
                f"SELECT item, count(*) FROM sales WHERE item LIKE 'load-{run}-%' GROUP BY item;"
            )
        }
        accepted = {sale["item"] for sale in report["acknowledged"]}
        tried = accepted | {sale["item"] for sale in report["unacknowledged"]}
        assert accepted, "no sale was accepted: nothing is proved"
        assert accepted - rows.keys() == set(), "accepted, and not in the database"
        assert {item: count for item, count in rows.items() if count != 1} == {}
        assert rows.keys() - tried == set()
        keys = [sale["key"] for sale in report["acknowledged"] if sale["key"]]
        ids = [sale["id"] for sale in report["acknowledged"]]
        assert len(set(ids)) == len(ids), "two sales got one id"
        assert len(set(keys)) == len(keys)
