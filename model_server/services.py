"""Putting the server's parts together, from its settings. Nothing listens and nothing runs in the background yet."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Engine

from model_server.clock import Clock, SystemClock
from model_server.db.base import open_engine
from model_server.db.credentials import Credentials
from model_server.db.migrate import upgrade
from model_server.releases.blobs import Blobs
from model_server.releases.service import ReleaseService
from model_server.rollouts.controller import Controller
from model_server.rollouts.service import RolloutService
from model_server.settings import Settings
from model_server.signing.publisher import Publisher, open_online_signers
from model_server.signing.repository import Repository
from model_server.telemetry.service import TelemetryService

__all__ = ["Services", "open_publisher", "open_services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    settings: Settings
    clock: Clock
    engine: Engine
    repository: Repository
    credentials: Credentials
    releases: ReleaseService
    rollouts: RolloutService
    telemetry: TelemetryService
    controller: Controller


def open_publisher(settings: Settings, clock: Clock) -> Publisher:
    """Open the repository and the online keys. Raises KeyRejected, RepositoryDamaged."""
    repository = Repository(settings.repository_dir)
    signers = open_online_signers(repository, settings.keys_dir, settings.online_passphrase)
    return Publisher(repository, signers, clock, settings.expiry)


def open_services(
    settings: Settings, *, clock: Clock | None = None, telemetry_today: Callable[[], date] | None = None
) -> Services:
    """Open the database (bringing it to the present schema), the repository and the online keys, and note what was
    published just before a crash.

    Raises: SettingsError, KeyRejected, RepositoryDamaged.
    """
    clock = clock or SystemClock()
    publisher = open_publisher(settings, clock)
    engine = open_engine(settings.database_url)
    upgrade(engine)
    settings.spool_dir.mkdir(exist_ok=True)
    settings.cloud_models.mkdir(exist_ok=True)
    for left_over in settings.spool_dir.glob("*.bundle"):
        left_over.unlink()
    releases = ReleaseService(engine, publisher, Blobs(settings.blobs_dir), clock, settings.expiry)
    releases.reconcile()
    rollouts = RolloutService(
        engine,
        publisher,
        clock,
        releases.is_published,
        lambda: secrets.token_hex(8),
        require_staging=settings.require_staging,
    )
    today = telemetry_today or (lambda: clock.now().date())
    telemetry = TelemetryService(engine, releases.manifest, today, random.SystemRandom(), settings.telemetry)
    return Services(
        settings=settings,
        clock=clock,
        engine=engine,
        repository=publisher.repository,
        credentials=Credentials(engine, clock),
        releases=releases,
        rollouts=rollouts,
        telemetry=telemetry,
        controller=Controller(
            rollouts,
            publisher,
            settings.controller_interval_s,
            {"closing telemetry days": telemetry.close_finished_days},
        ),
    )
