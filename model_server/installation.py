"""What a server's folder leads to: its repository, and the keys that the server signs with."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Engine

from model_server.clock import Clock
from model_server.db.base import open_engine
from model_server.settings import Settings
from model_server.signing.keys import read_passphrase
from model_server.signing.lease import lease_of
from model_server.signing.publisher import OnlineKeys, Publisher, open_online_signers
from model_server.signing.repository import Repository
from model_server.signing.uris import KeyUri
from model_server.storage.opening import open_storage

__all__ = ["online_keys", "online_uri", "open_publisher", "open_repository"]


def open_repository(settings: Settings, engine: Engine) -> Repository:
    """Raises: SettingsError, StorageUnavailable."""
    storage = open_storage(settings.directory, settings.objects, settings.object_options)
    return Repository(storage, lease_of(engine, settings.directory))


def open_publisher(settings: Settings, clock: Clock, engine: Engine | None = None) -> Publisher:
    """Open the repository and the online keys. Raises SettingsError, KeyRejected, RepositoryDamaged."""
    repository = open_repository(settings, engine or open_engine(settings.database_url))
    return Publisher(repository, partial(open_online_signers, online_keys(settings)), clock, settings.expiry)


def online_keys(settings: Settings) -> OnlineKeys:
    """Where the server's own keys are."""
    uris = {use: online_uri(settings, uri) for use, uri in settings.online_uris.items()}
    return OnlineKeys(folder=settings.keys_dir, passphrase_file=settings.online_passphrase, uris=uris)


def online_uri(settings: Settings, uri: str) -> KeyUri:
    return KeyUri(uri=uri, secret=lambda name: read_passphrase(settings.online_pin).decode())
