"""Find what is wrong with one host, over one connection; a dead host is a result, not an end."""

import re
import shlex
import time

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# For any shell: Python may be what is missing. One fact a line, so that noise does no harm.
PROBE = """
. /etc/os-release && echo "os=$ID $VERSION_ID"
echo "uid=$(id -u)"
if command -v python3 >/dev/null; then echo python=yes; fi
for folder in FOLDERS; do
    if [ -d "$folder" ]; then echo "disk=$(df -Pm "$folder" | tail -n 1)"; fi
done
"""
CLOCK = "echo clock=$(date +%s.%N)"
DISK = re.compile(r"(\d+) +(\d+) +(\d+) +\d+% +(\S+)$")


def facts(output):
    """Return the lines of `output` that say name=value, as a dict of lists."""
    found = {}
    for line in output.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.isalpha():
            found.setdefault(name, []).append(value)
    return found


def clock_offset(before, after, clock):
    """Return how many seconds a clock is off, if it was read between `before` and `after`."""
    return min(clock - before, 0.0) or max(clock - after, 0.0)


def host_problems(host, ssh, found, offset, limits):
    """Yield a line for each thing that is wrong with a host which answered."""
    system = found.get("os", ["unknown"])[0]
    if system not in [f"debian {release}" for release in limits["releases"]]:
        supported = " or ".join(limits["releases"])
        yield f"{host} runs {system}: install Debian {supported} on it, or remove it"
    if found.get("uid") != ["0"]:
        yield f"{host} gives no root: make `{ssh} sudo -n id` work"
    if "python" not in found:
        yield f"{host} has no Python: type {ssh} sudo apt-get install -y python3"
    full = {
        folder: f"{free} MB ({share:.0f} %) free on {folder}"
        for folder, free, share in disks(found.get("disk", []))
        if share < limits["free_percent"]
        or free < megabytes_needed(folder, 100 * free / max(share, 0.01), limits)
    }
    if full:
        yield (
            f"{host} has {' and '.join(full.values())}, of {limits['free_mb']:.0f} MB and "
            f"{limits['free_percent']:.0f} % needed: look for what fills it with "
            f"{ssh} sudo du -xm --max-depth=3 {shlex.join(full)}, or give it more room"
        )
    if abs(offset) > limits["clock"]:
        way = "ahead of" if offset > 0 else "behind"
        yield (
            f"the clock of {host} is {abs(offset):.0f} s {way} this machine's: "
            f"type {ssh} sudo chronyc makestep, and look at this machine's clock too"
        )


def megabytes_needed(folder, size, limits):
    """Return what a file system must have free: a disk of its own needs a tenth, one of logs none.

    One that could hold less than twice the limit is too small for data, though it be empty.
    """
    if f"{folder}/".startswith("/var/log/"):
        return 0
    shared = folder in ("/", "/var", "/srv") or size < 2 * limits["free_mb"]
    return limits["free_mb"] if shared else min(limits["free_mb"], size / 10)


def disks(lines):
    """Yield mount point, free megabytes and free share of each file system, once."""
    seen = set()
    for line in lines:
        match = DISK.search(line)
        if match and match[4] not in seen:
            seen.add(match[4])
            used, free = int(match[2]), int(match[3])
            yield match[4], free, 100 * free / max(used + free, 1)


def probe(folders):
    """Return the script; a folder that ends in /* stands for what is in it."""
    words = [
        f"{shlex.quote(folder[:-2])}/*" if folder.endswith("/*") else shlex.quote(folder)
        for folder in folders
    ]
    return PROBE.replace("FOLDERS", " ".join(words))


def ssh_command(variables, option):
    """Return the command by which the operator can try the connection."""
    words = ["ssh", *shlex.split(option("ssh_common_args") or "")]
    port = variables.get("ansible_port")
    key = variables.get("ansible_ssh_private_key_file")
    words += ["-p", str(port)] if port else []
    words += ["-i", key] if key else []
    user = variables.get("ansible_user")
    host = variables.get("ansible_host", variables["inventory_hostname"])
    return shlex.join([*words, f"{user}@{host}" if user else str(host)])


class ActionModule(ActionBase):
    """preflight_host: {limits: {…}, folders: […]} -> problems."""

    def run(self, tmp=None, task_vars=None):
        """Probe the host and return the list of its problems."""
        result = super().run(tmp, task_vars)
        host = task_vars["inventory_hostname"]
        variables = task_vars["hostvars"][host]
        ssh = ssh_command(variables, self._option)
        try:
            found = self._run(probe(self._task.args["folders"]))
            before = time.time()
            clock = self._run(CLOCK)["clock"][0]  # the connection stands: this takes no time
            offset = clock_offset(before, time.time(), float(clock))
        except (AnsibleError, KeyError) as error:
            reason = " ".join(str(error).split()).split("ssh: ")[-1]
            result["problems"] = [f"{host} can't be reached ({reason[-160:]}): try {ssh}"]
        else:
            limits = dict(self._task.args["limits"])
            for name in ("free_mb", "free_percent", "clock"):
                limits[name] = float(limits[name])  # -e gives strings
            result["problems"] = list(host_problems(host, ssh, found, offset, limits))
        return result

    def _option(self, name):
        try:
            return self._connection.get_option(name)
        except KeyError:  # not a connection by SSH
            return ""

    def _run(self, script):
        answer = self._low_level_execute_command(script, executable="/bin/sh")
        if answer["rc"] != 0 and "=" not in answer["stdout"]:
            raise AnsibleError(answer["stderr"] or answer["stdout"])
        return facts(answer["stdout"])
