"""`init` and `keys list`: what happens on the machine that has the server's folder."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from model_server.clock import Clock
from model_server.db.base import writing
from model_server.db.credentials import Kind, add_credential, has_credentials
from model_server.db.migrate import open_database
from model_server.errors import SettingsError
from model_server.settings import SETTINGS_FILE, Settings, load_settings, settings_text
from model_server.signing.ceremony import create_repository, make_keys
from model_server.signing.keys import read_passphrase
from model_server.signing.repository import Repository, write_atomic
from model_server.signing.roles import delegated_models, person_of, releases_role, rollouts_role

__all__ = ["CREDENTIALS_FILE", "ROOT_FILE", "check_directory", "init", "list_keys"]

ROOT_FILE = "root.json"
CREDENTIALS_FILE = "credentials.json"


def init(
    directory: Path,
    models: Sequence[str],
    people: Sequence[str],
    passphrase: bytes,
    clock: Clock,
    database: str | None = None,
) -> dict[str, object]:
    """Make a server's folder: settings, keys, the first metadata, an API key and a fleet token; and the database, a
    file in the folder unless ``database`` is the address of an empty one.

    The folder appears whole or not at all. Raises: SettingsError if it exists and is not empty, or the database is not
    empty or cannot be used; InvalidName.
    """
    check_directory(directory)
    place = directory.resolve()  # "." has no name and no place beside it
    place.parent.mkdir(parents=True, exist_ok=True)
    building = place.parent / f".{place.name}.{secrets.token_hex(4)}.init"
    building.mkdir(mode=0o700)
    try:
        tokens = _fill(building, models, people, passphrase, clock.now(), database)
        _move(building, place)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return {
        "directory": str(directory),
        "root": str(directory / ROOT_FILE),
        "credentials": str(directory / CREDENTIALS_FILE),
        "keys": sorted(str(path) for path in (directory / "keys").glob("*.pem")),
        "models": sorted(models),
        "people": list(people),
        **tokens,
    }


def check_directory(directory: Path) -> None:
    """Raises: SettingsError unless a server's folder can be made there."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SettingsError(f"{directory} exists and is not an empty folder; init never overwrites")


def _move(building: Path, place: Path) -> None:
    """Put a finished folder in its place. A folder that is there stays the same one, since a shell may stand in it;
    the settings, without which nothing is a server's folder, then go last."""
    if not place.exists():
        building.rename(place)
        return
    for entry in sorted(building.iterdir(), key=lambda entry: entry.name == SETTINGS_FILE):
        entry.rename(place / entry.name)
    building.rmdir()
    place.chmod(0o700)


def list_keys(directory: Path) -> dict[str, object]:
    """Who may sign what: every role with its threshold, its keys and their owners."""
    settings = load_settings(directory)
    repository = Repository(settings.repository_dir)
    root, targets = repository.root().signed, repository.top_level_targets().signed
    roles: list[dict[str, object]] = []
    for name, role in root.roles.items():
        owners = [(keyid, root.keys[keyid]) for keyid in role.keyids]
        roles.append(_role(name, role.threshold, [(keyid, person_of(key) or "server") for keyid, key in owners]))
    for model in delegated_models(targets):
        for name in (releases_role(model), rollouts_role(model)):
            delegated = targets.get_delegated_role(name)
            owners = [(keyid, targets.get_key(keyid)) for keyid in delegated.keyids]
            roles.append(
                _role(name, delegated.threshold, [(keyid, person_of(key) or "server") for keyid, key in owners])
            )
    return {"roles": roles}


def _fill(
    directory: Path,
    models: Sequence[str],
    people: Sequence[str],
    passphrase: bytes,
    now: datetime,
    database: str | None,
) -> dict[str, str]:
    settings = Settings(directory=directory)
    if database is not None:
        settings = replace(settings, database=database)
    (directory / SETTINGS_FILE).write_text(settings_text(database))
    settings.keys_dir.mkdir(mode=0o700)
    # Only the server reads it, so it is random, and another than the people's.
    write_atomic(settings.online_passphrase, (secrets.token_urlsafe(32) + "\n").encode(), 0o600)
    keys = make_keys(settings.keys_dir, people, passphrase, read_passphrase(settings.online_passphrase))
    root = create_repository(Repository(settings.repository_dir), keys, models, now, settings.expiry)
    (directory / ROOT_FILE).write_bytes(root)
    (settings.keys_dir / ROOT_FILE).write_bytes(root)  # each manager takes it along with their key
    settings.cloud_models.mkdir()
    engine = open_database(settings.database_url)
    with writing(engine) as session:
        if has_credentials(session):
            raise SettingsError("the database is that of a server already: name an empty one")
        tokens = {
            "admin_api_key": add_credential(session, Kind.ADMIN, "admin", now),
            "fleet_token": add_credential(session, Kind.FLEET, "fleet", now),
        }
        write_atomic(directory / CREDENTIALS_FILE, json.dumps(tokens, indent=2).encode() + b"\n", 0o600)
    engine.dispose()
    if database is None:
        (directory / settings.database).chmod(0o600)
    return tokens


def _role(name: str, threshold: int, owners: Sequence[tuple[str, str]]) -> dict[str, object]:
    return {
        "role": name,
        "threshold": threshold,
        "keys": [{"keyid": keyid, "owner": owner} for keyid, owner in owners],
    }
