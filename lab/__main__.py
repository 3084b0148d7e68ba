"""Command line of the lab: `python -m lab --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from lab import files, fleet
from lab.containers import Lab
from lab.inventory import Inventory, LabError


def main() -> int:
    """Run one command; obstacles are printed as one line, exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "make the hosts of an inventory"),
        ("down", "remove them"),
        ("fleet", "make the hosts, converge them with site.yml, check the site, print a summary"),
        ("secrets", "give each secret of an inventory that is still CHANGE_ME a random value"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("-i", "--inventory", type=Path, default=Path("inventories/lab"))
        command.add_argument("--name", default="lab", help="tells labs apart; default: lab")
    host = commands.add_parser("host", help="do to hosts what nobody can refuse, as drills need it")
    host.add_argument("what", choices=Lab.DEEDS)
    host.add_argument("hosts", nargs="+")
    host.add_argument("--name", default="lab")
    args = parser.parse_args()
    if args.command == "host":
        return answer(lambda: Lab(args.name).do(args.what, args.hosts))
    return answer(lambda: make(args))


def make(args: argparse.Namespace) -> None:
    """Run a command that makes or removes something."""
    lab = Lab(args.name)
    if args.command == "up":
        lab.up(Inventory.read(args.inventory))
    elif args.command == "down":
        lab.down()
    elif args.command == "secrets":
        say_secrets(args.inventory)
    else:
        fleet.bring_up(lab, args.inventory)


def say_secrets(inventory: Path) -> None:
    """Fill the secrets of an inventory, and say so. Raises LabError where there is none."""
    if not inventory.is_dir():
        raise LabError(f"there is no inventory {inventory}: type make secrets INVENTORY=its-folder")
    target = inventory / "group_vars/all/secrets.yml"
    written = files.fill_secrets(target)
    print(f"{target}: {'each secret has a value now' if written else 'nothing was missing'}")


def answer(command: Callable[[], None]) -> int:
    """Run a command; say in a line what was in its way."""
    try:
        command()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
