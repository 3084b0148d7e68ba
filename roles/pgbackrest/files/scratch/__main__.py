"""Restore a backup beside the cluster: to check it, to compare it, or to put it in place.

Runs as postgres, with the settings of /etc/pgbackrest-scratch.json. Prints JSON; what is wrong
is one line on stderr, with exit code 1; of `leads` with 255, as 1 is its answer.
"""

import argparse
import json
import sys

import live
from facts import SETTINGS, Host, ScratchError, differences
from notes import notes
from scratch import Scratch


def main():
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="pgbackrest-scratch", description=__doc__)
    parser.add_argument("--repository", type=int, default=1, help="its number; default: 1")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "leads": "exit code 0 on the leader, 1 on others, 255 when nobody leads",
        "checks": "exit code 0 on the member that checks backups",
        "check": "prove the newest backup, unless this host has done so",
        "notes": "what an operator should know, from what lies on this host",
        "sums": "rows and checksums of the scratch cluster's tables",
        "fits": "refuse unless it can be moved to a cluster's directory",
        "describe": "tell repositories that know no cluster of the scratch cluster",
        "promote": "end its recovery, on a new timeline, and stop it",
        "drop": "remove the scratch cluster",
        "mark": "on the leader: name a moment, with the sums of all tables",
        "flush": "on the leader: archive all that was written",
        "restore": "restore into the scratch directory, and replay to a target",
        "compare": "on stdin what mark printed: fail unless the scratch cluster's sums equal it",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "mark":
            command.add_argument("name")
        if name == "fits":
            command.add_argument("place")
            needs = command.add_mutually_exclusive_group()
            needs.add_argument("--keep", action="store_true", help="what is there needs its room")
            needs.add_argument("--unended", action="store_true", help="what is aside needs it")
        if name in ("mark", "flush"):
            command.add_argument("--limit", type=float, default=420, help="seconds")
        if name == "restore":
            command.add_argument("kind", choices=["latest", "time", "name", "immediate"])
            command.add_argument("--target")
            command.add_argument("--timeline")
            command.add_argument("--backup", help="label; without it pgBackRest chooses")
    args = parser.parse_args()
    host = Host(json.loads(SETTINGS.read_text()), args.repository)
    scratch = Scratch(host)
    try:
        if args.command in ("leads", "checks"):
            return 0 if getattr(host, args.command)() else 1
        if args.command == "notes":
            answer = notes(host)
        elif args.command == "mark":
            answer = live.mark(host, args.name, args.limit)
        elif args.command == "flush":
            answer = live.flush(host, args.limit)
        elif args.command == "restore":
            scratch.lock(wait=True)
            answer = scratch.restore(args.kind, args.target, args.timeline, args.backup)
        elif args.command == "fits":
            answer = scratch.fits(args.place, args.keep, args.unended)
        elif args.command == "compare":
            wanted, found = json.load(sys.stdin)["sums"], scratch.sums()
            wrong = differences(wanted, found)
            rows = sum(int(text.split()[0]) for text in found.values())
            answer = {"tables": len(found), "rows": rows, "differences": wrong}
        else:
            answer = getattr(scratch, args.command)()
    except ScratchError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 255 if args.command == "leads" else 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
