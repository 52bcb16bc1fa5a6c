"""The grammar of `edgeship-server people`, `login`, `logout` and `whoami`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from model_server.access.roles import Role

__all__ = ["add_people_parser"]

Parser = argparse.ArgumentParser
Remote = Callable[[Parser], Parser]


def add_people_parser(commands: argparse._SubParsersAction[Parser], remote: Remote, json: Remote) -> None:
    """``remote`` adds the options of a command that asks a server, ``json`` those of any command."""
    _sessions(commands, remote)
    people = commands.add_parser(
        "people",
        help="who may do what",
        description="Who may do what on a server. A viewer reads; an operator also steers running rollouts and "
        "approves baselines of drift; a release-manager also stages, signs, publishes, revokes and starts rollouts; "
        "an admin also looks after people and their keys.",
    ).add_subparsers(dest="action", required=True, metavar="ACTION")

    def command(name: str, text: str) -> Parser:
        made = remote(people.add_parser(name, help=text))
        made.set_defaults(run=f"people {name}")
        return made

    command("list", "every person, with their role")
    add = _named(command("add", "add a person"))
    _role(add)
    _password(add, "lets them log in; left out, they have API keys only")
    _role(_named(command("set-role", "change a person's role; a lower one ends their keys and sessions")))
    _password(_named(command("set-password", "set a person's password; ends their sessions")), "asked for if left out")
    _named(command("disable", "end a person's keys and sessions, and let them in no more"))
    _named(command("enable", "let a disabled person in again, with new keys"))
    _keys(people, remote)
    recover = json(
        people.add_parser(
            "recover",
            help="on the server's machine: a new key for an admin who lost theirs",
            description="On the server's own machine, for when nobody's key works: makes NAME an enabled admin with "
            "one new API key, and ends their others. The audit log notes it.",
        )
    )
    recover.add_argument("directory", type=Path, metavar="DIR")
    _named(recover)
    recover.add_argument("--out", type=Path, metavar="FILE", help="default: NAME.credentials.json in DIR")
    recover.set_defaults(run="people recover")


def _sessions(commands: argparse._SubParsersAction[Parser], remote: Remote) -> None:
    login = commands.add_parser("login", help="open a session of 12 hours with your password")
    login.add_argument("name", metavar="NAME")
    _password(login, "asked for if left out")
    login.add_argument("--server", help="address (or EDGESHIP_SERVER)")
    login.add_argument(
        "--credentials",
        type=Path,
        metavar="FILE",
        help="written, mode 0600 (default: edgeship/credentials.json in your configuration folder, which commands "
        "read by themselves)",
    )
    login.add_argument("--json", action="store_true", help="print one JSON object")
    login.set_defaults(run="login")
    for name, text in (("logout", "end the session and remove its file"), ("whoami", "whose key this is")):
        remote(commands.add_parser(name, help=text)).set_defaults(run=name)


def _keys(people: argparse._SubParsersAction[Parser], remote: Remote) -> None:
    keys = people.add_parser("key", help="API keys of a person").add_subparsers(
        dest="key_action", required=True, metavar="ACTION"
    )
    add = _named(remote(keys.add_parser("add", help="make one more API key, which is shown once")))
    add.add_argument("--name", dest="label", default="key", help="what it is for (default: %(default)s)")
    add.add_argument("--expires", type=int, metavar="DAYS", help="default: never")
    add.add_argument("--out", type=Path, metavar="FILE", help="write it there, mode 0600, and do not show it")
    listing = _named(remote(keys.add_parser("list", help="API keys and sessions, valid or not")))
    revoke = _named(remote(keys.add_parser("revoke", help="end an API key or a session at once")))
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", metavar="ID", help="as `people key list` shows it")
    which.add_argument("--all", action="store_true", help="every key and session of the person")
    for command, action in ((add, "add"), (listing, "list"), (revoke, "revoke")):
        command.set_defaults(run=f"people key {action}")


def _named(parser: Parser) -> Parser:
    parser.add_argument("person", metavar="NAME")
    return parser


def _role(parser: Parser) -> None:
    parser.add_argument("--role", required=True, choices=[role.value for role in Role])


def _password(parser: Parser, text: str) -> None:
    parser.add_argument("--password-file", type=Path, metavar="FILE", help=f"its first line; {text}")
