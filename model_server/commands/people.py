"""`people` and `whoami`: who may do what on a server."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from model_server.access.people import check_name, recover
from model_server.client import Client
from model_server.clock import Clock
from model_server.commands.sessions import write_credentials
from model_server.commands.show import table
from model_server.db.migrate import open_database
from model_server.errors import SettingsError
from model_server.settings import load_settings

__all__ = ["run_people", "run_recover"]

Answer = dict[str, Any]


def run_people(
    args: argparse.Namespace, client: Client, console: Console, password: Callable[[Path | None], str]
) -> Answer:
    """Run one command; its answer is what ``--json`` prints. ``password`` reads a file, or asks twice.

    Raises: MalformedRequest, SettingsError, ServerRefused, ServerUnreachable.
    """
    if args.run == "whoami":
        me: Answer = client.get("/v1/whoami")
        console.print(f"{me['name']} ({me['role']}), key {me['key']}")
        return me
    if args.run == "people list":
        found: Answer = client.get("/v1/people")
        _show_people(console, found["people"])
        return found
    path = f"/v1/people/{check_name(args.person)}"
    match args.run:
        case "people add":
            body: dict[str, object] = {"name": args.person, "role": args.role}
            if args.password_file is not None:
                body["password"] = password(args.password_file)
            answer: Answer = client.post("/v1/people", body)
        case "people set-role":
            answer = client.post(f"{path}/role", {"role": args.role})
        case "people set-password":
            answer = client.post(f"{path}/password", {"password": password(args.password_file)})
        case "people disable":
            answer = client.post(f"{path}/disable")
        case "people enable":
            answer = client.post(f"{path}/enable")
        case _:
            return _keys(args, path, client, console)
    _show_people(console, [answer])
    return answer


def run_recover(args: argparse.Namespace, clock: Clock, console: Console) -> Answer:
    """Raises: SettingsError, also if the file to be written is there; MalformedRequest."""
    check_name(args.person)
    file = args.out or args.directory / f"{args.person}.credentials.json"
    if file.exists():
        raise SettingsError(f"{file} exists: name another file with --out")
    engine = open_database(load_settings(args.directory).database_url)
    try:
        made = recover(engine, args.person, clock.now())
    finally:
        engine.dispose()
    write_credentials(file, {"name": args.person, "api_key": made.key})
    console.print(f"{args.person} is an admin; their new API key is in {file}, and their others have ended")
    return {"name": args.person, "role": "admin", "id": made.id, "credentials": str(file)}


def _keys(args: argparse.Namespace, path: str, client: Client, console: Console) -> Answer:
    match args.run:
        case "people key list":
            found: Answer = client.get(f"{path}/keys")
            _show_keys(console, found)
            return found
        case "people key revoke":
            client.delete(f"{path}/keys" if args.all else f"{path}/keys/{_plain(args.id)}")
            console.print(f"{'every key and session' if args.all else args.id} of {args.person} has ended")
            return {"name": args.person, "revoked": "all" if args.all else args.id}
    if args.out is not None and args.out.exists():
        raise SettingsError(f"{args.out} exists: name another file")
    made: Answer = client.post(f"{path}/keys", {"name": args.label, "expires_days": args.expires})
    if args.out is None:
        console.print(f"key {made['id']} of {args.person}; it is shown this once: {made['api_key']}", soft_wrap=True)
        return made
    write_credentials(args.out, {"server": client.server, "name": args.person, "api_key": made.pop("api_key")})
    console.print(f"key {made['id']} of {args.person} is in {args.out}")
    return {**made, "credentials": str(args.out)}


def _plain(key: str) -> str:
    if not (key.isascii() and key.isalnum()):
        raise SettingsError(f"{ascii(key)[:40]} is no key's id: `people key list` shows them")
    return key


def _show_people(console: Console, people: list[Mapping[str, Any]]) -> None:
    rows = [
        (
            str(person["name"]),
            str(person["role"]),
            "yes" if person["has_password"] else "no",
            person["created"][:10],
            (person["disabled"] or "–")[:10],
        )
        for person in people
    ]
    console.print(table("People", ["name", "role", "password", "created", "disabled"], rows))


def _show_keys(console: Console, found: Mapping[str, Any]) -> None:
    rows = [
        (
            key["id"],
            key["kind"],
            key["name"],
            key["state"],
            key["created"][:10],
            (key["expires"] or "never")[:16].replace("T", " "),
            key["last_used"] or "–",
        )
        for key in found["keys"]
    ]
    columns = ["id", "kind", "name", "state", "created", "expires", "last used"]
    console.print(table(f"Keys of {escape(found['name'])}", columns, rows))
