"""`init`: making a server's folder."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from model_server.access.credentials import CredentialRow
from model_server.access.people import first_admin
from model_server.access.tables import PersonRow
from model_server.clock import Clock
from model_server.db.base import writing
from model_server.db.migrate import open_database
from model_server.enrolment.tokens import TokenLimits, add_token
from model_server.errors import SettingsError
from model_server.files import write_atomic
from model_server.installation import open_repository
from model_server.settings import SETTINGS_FILE, Place, load_settings, settings_text
from model_server.signing.ceremony import create_repository, make_keys
from model_server.signing.keys import read_passphrase
from model_server.signing.repository import METADATA

__all__ = ["CREDENTIALS_FILE", "ROOT_FILE", "check_directory", "init"]

ROOT_FILE = "root.json"
CREDENTIALS_FILE = "credentials.json"
# Enough to begin with; `devices token add` makes others.
FIRST_TOKEN = TokenLimits(uses=1000, valid=timedelta(days=30), per_hour=1000)


def init(
    directory: Path,
    models: Sequence[str],
    people: Sequence[str],
    passphrase: bytes,
    clock: Clock,
    place: Place | None = None,
    admin: str | None = None,
) -> dict[str, object]:
    """Make a server's folder: settings, keys, the first metadata, an API key of ``admin`` (the first of ``people``
    if it is left out) and an enrolment token; the database and the repository, in the folder unless ``place`` names
    other ones, which must be empty.

    The folder appears whole or not at all. Raises: SettingsError if it exists and is not empty, or the database or the
    storage is not empty or cannot be used; InvalidName, MalformedRequest for the name of a model or of the admin.
    """
    check_directory(directory)
    final = directory.resolve()  # "." has no name and no place beside it
    final.parent.mkdir(parents=True, exist_ok=True)
    building = final.parent / f".{final.name}.{secrets.token_hex(4)}.init"
    building.mkdir(mode=0o700)
    try:
        tokens = _fill(building, models, people, passphrase, clock.now(), place or Place(), admin or people[0])
        _move(building, final)
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
        "admin": admin or people[0],
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


def _fill(
    directory: Path,
    models: Sequence[str],
    people: Sequence[str],
    passphrase: bytes,
    now: datetime,
    place: Place,
    admin: str,
) -> dict[str, str]:
    (directory / SETTINGS_FILE).write_text(settings_text(place))
    settings = load_settings(directory)
    settings.keys_dir.mkdir(mode=0o700)
    # Only the server reads it, so it is random, and another than the people's.
    write_atomic(settings.online_passphrase, (secrets.token_urlsafe(32) + "\n").encode(), 0o600)
    keys = make_keys(settings.keys_dir, people, passphrase, read_passphrase(settings.online_passphrase))
    settings.cloud_models.mkdir()
    engine = open_database(settings.database_url)
    repository = open_repository(settings, engine)
    with writing(engine) as session:
        if any(session.execute(select(column).limit(1)).first() for column in (PersonRow.name, CredentialRow.digest)):
            raise SettingsError("the database is that of a server already: name an empty one")
        if any(repository.storage.names(METADATA)):
            raise SettingsError(f"the storage {settings.objects} holds a repository already: name an empty place")
        tokens = {
            "admin_api_key": first_admin(session, admin, now).key,
            "enrolment_token": add_token(session, FIRST_TOKEN, now, "init").secret,
        }
        write_atomic(directory / CREDENTIALS_FILE, json.dumps(tokens, indent=2).encode() + b"\n", 0o600)
        root = create_repository(repository, keys, models, now, settings.expiry)
    engine.dispose()
    (directory / ROOT_FILE).write_bytes(root)
    (settings.keys_dir / ROOT_FILE).write_bytes(root)  # each manager takes it along with their key
    if settings.database == Place().database:
        (directory / settings.database).chmod(0o600)
    return tokens
