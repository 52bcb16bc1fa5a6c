"""What the commands of `edgeship-server` do with their arguments."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from edge_runtime.bundle.errors import EdgeshipError
from model_server.clock import SystemClock
from model_server.commands.parser import build_parser
from model_server.errors import KeyRejected, ReviewFailed, SettingsError

if TYPE_CHECKING:
    from model_server.commands.guide import Chosen

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong usage."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.run == "init":
        missing = [option for option, given in (("--model", args.model), ("--person", args.person)) if not given]
        if missing and (args.json or not sys.stdin.isatty()):
            parser.error(f"the following arguments are required: {', '.join(missing)}")
    wants_json = getattr(args, "json", False)
    console = Console(stderr=wants_json, quiet=wants_json)
    try:
        answer = _run(args, console)
    except (EdgeshipError, OSError) as error:
        print(f"edgeship-server: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except EOFError:
        print("edgeship-server: the input ended before an answer was given; nothing was done", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if wants_json:
        print(json.dumps(answer, indent=2))
    return 0


def _run(args: argparse.Namespace, console: Console) -> dict[str, object]:
    match args.run:
        case "init":
            return _init(args, console)
        case "keys list":
            return _list_keys(args, console)
        case "export":
            from model_server.commands.looking import export_files

            return export_files(args.directory, args.out, console)
        case "keys":
            from model_server.commands.keys import run_keys

            return run_keys(args, console, _passphrase, _confirm, SystemClock())
        case "serve":
            _serve(args, console)
            return {}
        case "login":
            from model_server.commands.sessions import log_in

            return log_in(args, os.environ, partial(_password, new=False), console)
        case "people recover":
            from model_server.commands.people import run_recover

            return run_recover(args, SystemClock(), console)
    if args.run == "release sign" and args.proposal is not None:
        from model_server.commands.signing import run_sign_carried

        return run_sign_carried(args, console, _passphrase, _confirm)
    from model_server.commands.remote import run_remote
    from model_server.commands.sessions import connect, log_out

    with connect(args, os.environ) as client:
        if args.run == "logout":
            return log_out(args, os.environ, client, console)
        if args.run == "whoami" or args.run.startswith("people "):
            from model_server.commands.people import run_people

            return run_people(args, client, console, partial(_password, new=True))
        return run_remote(args, client, console, _passphrase, _confirm)


def _init(args: argparse.Namespace, console: Console) -> dict[str, object]:
    from model_server.commands.guide import next_steps
    from model_server.commands.local import init
    from model_server.settings import Place

    chosen = _chosen(args, console)
    secret = chosen.passphrase or _passphrase(args.passphrase_file, new=True)
    place = Place(
        database=chosen.database or Place().database,
        objects=args.objects or Place().objects,
        endpoint=args.objects_endpoint,
        region=args.objects_region,
    )
    answer = init(args.directory, chosen.models, chosen.people, secret, SystemClock(), place, args.admin)
    console.print(
        f"{args.directory} is ready. Devices trust {answer['root']}. The API key of {answer['admin']} and an "
        f"enrolment token are in {answer['credentials']} and nowhere else."
    )
    console.print(next_steps(args.directory, chosen.models, chosen.people), markup=False, soft_wrap=True)
    return answer


def _list_keys(args: argparse.Namespace, console: Console) -> dict[str, object]:
    from model_server.commands.looking import list_keys
    from model_server.commands.show import show_keys

    keys = list_keys(args.directory)
    show_keys(console, keys)
    return keys


def _chosen(args: argparse.Namespace, console: Console) -> Chosen:
    """What the options say; at a terminal, where they leave models or people out, what is answered too."""
    from model_server.commands.guide import Chosen, Terminal, guide
    from model_server.commands.local import check_directory
    from model_server.db.migrate import check_empty

    given = Chosen(models=tuple(args.model), people=tuple(args.person), database=args.database, passphrase=None)
    if given.models and given.people:
        return given
    check_directory(args.directory)
    return guide(
        args.directory,
        given,
        Terminal(say=lambda text: console.print(text, markup=False, soft_wrap=True), ask=input, secret=getpass.getpass),
        check_database=check_empty,
        has_passphrase=args.passphrase_file is not None,
    )


def _serve(args: argparse.Namespace, console: Console) -> None:
    from model_server.app import create_app
    from model_server.commands.serving import serve
    from model_server.settings import load_settings

    serve(
        create_app(load_settings(args.directory)),
        args.host,
        args.port,
        ready_file=args.ready_file,
        announce=lambda address: console.print(f"Edgeship serves {args.directory} on {address}", soft_wrap=True),
    )


def _passphrase(file: Path | None, *, new: bool = False, what: str = "") -> bytes:
    """From a file, else from the terminal: of the key files, or ``what`` else opens a key. Raises KeyRejected."""
    from model_server.signing.keys import read_passphrase

    if file is not None:
        return read_passphrase(file)
    if not sys.stdin.isatty():
        option = "--pin-file" if what else "--passphrase-file"
        raise KeyRejected(f"there is no terminal to ask for the {what or 'passphrase'}: give {option}")
    passphrase = getpass.getpass(f"{what[:1].upper()}{what[1:]}: " if what else "Passphrase of the keys: ")
    if new and getpass.getpass("Once more: ") != passphrase:
        raise KeyRejected("the two passphrases differ")
    if not passphrase:
        raise KeyRejected(f"the {what or 'passphrase'} must not be empty")
    return passphrase.encode()


def _password(file: Path | None, *, new: bool) -> str:
    """A person's password: the first line of a file, else from the terminal. Raises SettingsError."""
    if file is not None:
        try:
            password = file.read_text().split("\n", 1)[0].rstrip("\r")
        except (OSError, ValueError) as error:
            raise SettingsError(f"the password file {file} cannot be read: {type(error).__name__}") from error
        if not password:
            raise SettingsError(f"the password file {file} starts with an empty line")
        return password
    if not sys.stdin.isatty():
        raise SettingsError("there is no terminal to ask for the password: give --password-file")
    password = getpass.getpass("Password: ")
    if new and getpass.getpass("Once more: ") != password:
        raise SettingsError("the two passwords differ")
    return password


def _confirm(question: str) -> bool:
    """Ask at a terminal. Raises ReviewFailed without one."""
    if not sys.stdin.isatty():
        raise ReviewFailed("there is no terminal to ask at: give --yes to sign without being asked. Nothing was signed")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
