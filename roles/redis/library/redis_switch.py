#!/usr/bin/python
"""Hand the primary's part to a replica, without losing a write that was acknowledged."""

import time

from ansible.module_utils.basic import AnsibleModule

try:
    from redis import Redis
    from redis.exceptions import RedisError, ResponseError
except ImportError:  # check mode on a new host
    Redis = None

PAUSE = 20  # seconds that writes are held at most; outlasts a failover that Sentinel gives up
SWITCH = 15  # seconds for Sentinel to switch; it gives up after 10 itself (failover-timeout)
HEARD = 3  # seconds for every Sentinel to hear of it
TILT = 45  # seconds for Sentinel to leave TILT mode
STEP = 30  # seconds for replicas to be in step, before a write is held
LAG = 1  # seconds since a replica last said what it has, which it does each second
COPY = 2  # seconds for every replica to have what was written before the pause
POLL = 0.05


class RefusedError(Exception):
    """The switch can't be made without a loss, and was not begun."""


class Tier:
    """The Redis of this host, and the Sentinels of all members."""

    def __init__(self, params):
        self.address, self.master = params["address"], params["master"]

        def connect(host, port):
            return Redis(
                host, port, password=params["password"], decode_responses=True,
                socket_timeout=2, socket_connect_timeout=1,
            )  # fmt: skip

        self.redis = connect(self.address, 6379)
        self.sentinel = connect(self.address, 26379)
        self.sentinels = [connect(member, 26379) for member in params["members"]]

    def standing(self):
        """Say whether this host has the primary, a replica, or no Redis that answers."""
        try:
            role = self.redis.info("replication")["role"]
        except RedisError:
            return "away"
        return "leads" if role == "master" else "follows"

    def replicas(self):
        """Return the replicas that have a copy, as the primary lists them, by address."""
        info = self.redis.info("replication")
        found = [info[f"slave{n}"] for n in range(info["connected_slaves"])]
        return {each["ip"]: each for each in found if each["state"] == "online"}

    def named(self):
        """Return the primaries that the Sentinels which answer name."""
        found = set()
        for sentinel in self.sentinels:
            try:
                found.add(
                    sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)[0]
                )
            except (RedisError, TypeError):  # TypeError: it knows no such name
                continue
        return found

    def check(self):
        """Raise RefusedError unless a quorum agrees on the primary and its replicas are in step."""
        if (named := self.named()) != {self.address}:
            names = ", ".join(sorted(named)) or "nobody"
            raise RefusedError(f"{self.address} is a primary, but the Sentinels name {names}")
        try:
            self.sentinel.execute_command("SENTINEL", "CKQUORUM", self.master)
        except ResponseError as error:
            raise RefusedError(f"the Sentinels have no quorum: {error}") from error
        # After a jump of the clock, or when the host is too busy, Sentinel only watches for 30 s.
        wait(self._acts, TILT, "Sentinel is in TILT mode, and did not leave it")
        self._wait_for_step()

    def check_away(self):
        """Raise RefusedError if this is the primary all the same; the Sentinels replace it soon."""
        if self.named() == {self.address}:
            raise RefusedError(f"{self.address} is the primary, and its Redis does not answer")

    def switch(self):
        """Hold writes, let Sentinel switch, follow the new primary; return its address.

        Sentinel alone would promote a replica while this one still accepts writes, and those
        would be lost: a write is held here until each replica that Sentinel may choose has all
        that came before it.
        """
        self.redis.execute_command("CLIENT", "PAUSE", int(PAUSE * 1000), "WRITE")
        try:
            self._wait_for_copies()
            self.sentinel.execute_command("SENTINEL", "FAILOVER", self.master)
            successor = self._wait_for_successor()
            self.redis.execute_command("REPLICAOF", successor, 6379)
            # Whoever asks a Sentinel that has not heard yet would be sent here again.
            deadline = time.monotonic() + HEARD
            while self.named() != {successor} and time.monotonic() < deadline:
                time.sleep(POLL)
        finally:
            self.redis.execute_command("CLIENT", "UNPAUSE")
        # What was held is refused now, since this is a replica; the rest must notice, too.
        self.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return successor

    def _wait_for_step(self):
        """Wait for a replica that was restarted or is copying; a frozen one is none, either."""
        deadline = time.monotonic() + (STEP if len(self.sentinels) > 1 else 0)
        while not (up := self._up()) or up - self._in_step():
            if time.monotonic() > deadline:
                if late := up - self._in_step():
                    raise self._not_all(late, STEP)
                raise RefusedError(
                    f"{self.address} is the primary, and no replica is in step with it"
                )
            time.sleep(POLL)

    def _wait_for_copies(self):
        deadline = time.monotonic() + COPY
        while behind := self._behind():
            if time.monotonic() > deadline:
                raise self._not_all(behind, COPY)
            time.sleep(POLL)

    def _not_all(self, behind, seconds):
        names = ", ".join(sorted(behind))
        return RefusedError(
            f"{names} did not have every write within {seconds} s, and Sentinel might promote it: "
            f"{self.address} stays the primary"
        )

    def _wait_for_successor(self):
        try:
            return wait(self._successor, SWITCH, "Sentinel promoted no replica")
        except RefusedError:
            # It must not do so later, when writes are no longer held.
            self.sentinel.execute_command("SENTINEL", "RESET", self.master)
            raise

    def _acts(self):
        return not self.sentinel.info("sentinel")["sentinel_tilt"]

    def _up(self):
        """Return the replicas that are up, as Sentinel sees it: those it might promote."""
        known = self.sentinel.sentinel_slaves(self.master)
        return {each["ip"] for each in known if not (each["is_sdown"] or each["is_disconnected"])}

    def _behind(self):
        """Return those that don't have every write."""
        wanted = self.redis.info("replication")["master_repl_offset"]
        has = {address: each["offset"] for address, each in self.replicas().items()}
        return {address for address in self._up() if has.get(address, -1) < wanted}

    def _in_step(self):
        return {address for address, each in self.replicas().items() if each["lag"] <= LAG}

    def _successor(self):
        others = self.named() - {self.address}
        return others.pop() if len(others) == 1 else None


def wait(question, seconds, otherwise):
    """Return the first true answer."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise RefusedError(f"{otherwise} within {seconds} s: it stays as it was")
        time.sleep(POLL)
    return answer


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "address": {"required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "password": {"required": True, "no_log": True},
            "master": {"required": True},
            "state": {"choices": ["described", "switched"], "default": "switched"},
        },
        supports_check_mode=True,
    )
    if Redis is None:
        module.exit_json(changed=False, standing="away", replicas=[])
    tier = Tier(module.params)
    standing = tier.standing()
    answer = {"changed": False, "standing": standing, "replicas": []}
    try:
        if standing == "leads":
            answer["replicas"] = sorted(tier.replicas())
        if module.params["state"] == "described" or standing == "follows":
            module.exit_json(**answer)
        if standing == "away":
            tier.check_away()
            module.exit_json(**answer)
        tier.check()
        if not module.check_mode:
            began = time.monotonic()
            answer["primary"] = tier.switch()
            answer["seconds"] = round(time.monotonic() - began, 2)
    except RefusedError as error:
        module.fail_json(msg=str(error), **answer)
    except RedisError as error:
        module.fail_json(msg=f"Redis or Sentinel on {tier.address}: {error}", **answer)
    module.exit_json(**{**answer, "changed": True})


if __name__ == "__main__":
    main()

DOCUMENTATION = r"""
module: redis_switch
short_description: Hand the primary's part to a replica without losing a write
description:
  - C(described) says where this host stands; C(leads), C(follows) or C(away).
  - >-
    C(switched) does nothing unless this host has the primary. Then it waits until the replicas are
    in step, holds writes for the time of a failover by Sentinel, about two seconds, and fails
    before it begins when that can't go well.
author: [Evenkeel]
options:
  address: {description: Address of this host's Redis and Sentinel., type: str, required: true}
  members: {description: Addresses of all members., type: list, elements: str, required: true}
  password: {description: Password of Redis and Sentinel., type: str, required: true}
  master: {description: The name that Sentinel knows., type: str, required: true}
  state: {description: What to do., choices: [described, switched], type: str, default: switched}
"""
