"""Keys on a person's machine: `login`, `logout`, and the files that hold what they show to a server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from model_server.client import Client
from model_server.errors import ServerRefused, SettingsError
from model_server.files import write_atomic

__all__ = ["connect", "log_in", "log_out", "session_file", "write_credentials"]

# What a file of `login`, of `people key add` or `people recover`, and of `init` calls its key.
KEYS = ("session_key", "api_key", "admin_api_key")
UNAUTHORIZED = 401


def session_file(environment: Mapping[str, str]) -> Path:
    """Where `login` puts a session if it is not told."""
    home = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "edgeship" / "credentials.json"


def connect(args: argparse.Namespace, environment: Mapping[str, str]) -> Client:
    """The server and key from the options, else from the environment, else from the last `login`.

    Raises: SettingsError without either, or if the file is of another server.
    """
    server = args.server or environment.get("EDGESHIP_SERVER")
    key = args.api_key or environment.get("EDGESHIP_API_KEY")
    file: Path | None = args.credentials
    if file is None and not key and session_file(environment).exists():
        file = session_file(environment)
    if file is not None:
        values = _read(file)
        key = next((values[name] for name in KEYS if name in values), None)
        if not isinstance(key, str):
            raise SettingsError(f"{file} holds no key: none of {', '.join(KEYS)}")
        server = _server_of(file, values, server)
    if not server:
        raise SettingsError("name the server: --server https://… or EDGESHIP_SERVER")
    if not key:
        raise SettingsError(
            "show who you are: `edgeship-server login NAME`, or --api-key, --credentials FILE or EDGESHIP_API_KEY"
        )
    return Client(server, key)


def log_in(
    args: argparse.Namespace, environment: Mapping[str, str], password: Callable[[Path | None], str], console: Console
) -> dict[str, Any]:
    """Raises: SettingsError, also if the file to be written holds other keys; ServerRefused, ServerUnreachable."""
    server = args.server or environment.get("EDGESHIP_SERVER")
    if not server:
        raise SettingsError("name the server: --server https://… or EDGESHIP_SERVER")
    file = args.credentials or session_file(environment)
    if file.exists() and "session_key" not in _read(file):
        raise SettingsError(f"{file} holds keys that no login made: name another file with --credentials")
    with Client(server, None) as client:
        opened = client.post("/v1/sessions", {"name": args.name, "password": password(args.password_file)})
    write_credentials(file, {"server": client.server, **opened})
    console.print(
        f"{opened['name']} ({opened['role']}) is logged in until {opened['expires'][:16].replace('T', ' ')} UTC; the "
        f"session's key is in {file}"
    )
    return {name: value for name, value in opened.items() if name != "session_key"} | {"credentials": str(file)}


def log_out(
    args: argparse.Namespace, environment: Mapping[str, str], client: Client, console: Console
) -> dict[str, Any]:
    """End the session, and remove its file. A session that has ended already is no error. Raises: SettingsError for
    a key that no login made."""
    file = args.credentials or session_file(environment)
    if args.api_key or not file.exists() or "session_key" not in _read(file):
        raise SettingsError("only a session is logged out; an API key is ended with `people key revoke`")
    try:
        client.delete("/v1/sessions/own")
    except ServerRefused as error:
        if error.status != UNAUTHORIZED:
            raise
    file.unlink()
    console.print("logged out")
    return {"removed": str(file)}


def write_credentials(file: Path, values: Mapping[str, object]) -> None:
    """A file that only its owner reads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(dict(values), indent=2).encode() + b"\n", 0o600)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} holds no credentials: {type(error).__name__}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{file} holds no credentials")
    return values


def _server_of(file: Path, values: Mapping[str, Any], server: str | None) -> str | None:
    """A key is shown to no other server than the one that gave it, where that is known."""
    own = values.get("server")
    if own is None:
        return server
    if server is not None and server.rstrip("/") != own:
        raise SettingsError(f"the key in {file} is of {own}, not of {server}: log in there")
    return str(own)
