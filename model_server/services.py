"""Putting the server's parts together, from its settings. Nothing listens and nothing runs in the background yet."""

from __future__ import annotations

import fcntl
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine

from model_server.access.passwords import Passwords
from model_server.access.people import People
from model_server.access.service import Access
from model_server.access.sessions import Sessions
from model_server.clock import Clock, SystemClock
from model_server.db.migrate import open_database
from model_server.enrolment.devices import Devices
from model_server.enrolment.tokens import Tokens
from model_server.errors import SettingsError
from model_server.releases.blobs import Blobs
from model_server.releases.delta.offering import DeltaLimits
from model_server.releases.policies import PolicyService
from model_server.releases.service import ReleaseService
from model_server.rollouts.controller import Controller
from model_server.rollouts.service import RolloutService
from model_server.settings import Settings
from model_server.signing.alerts import watch_expiry
from model_server.signing.publisher import Publisher, open_online_signers
from model_server.signing.repository import Repository
from model_server.telemetry.service import TelemetryService

__all__ = ["Services", "open_publisher", "open_services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """``claim`` is open, and locked, while this server has its folder to itself."""

    claim: BinaryIO
    settings: Settings
    clock: Clock
    engine: Engine
    repository: Repository
    access: Access
    people: People
    sessions: Sessions
    devices: Devices
    tokens: Tokens
    releases: ReleaseService
    policies: PolicyService
    rollouts: RolloutService
    telemetry: TelemetryService
    controller: Controller


def open_publisher(settings: Settings, clock: Clock) -> Publisher:
    """Open the repository and the online keys. Raises KeyRejected, RepositoryDamaged."""
    repository = Repository(settings.repository_dir)
    open_signers = partial(open_online_signers, settings.keys_dir, settings.online_passphrase)
    return Publisher(repository, open_signers, clock, settings.expiry)


def open_services(
    settings: Settings, *, clock: Clock | None = None, telemetry_today: Callable[[], date] | None = None
) -> Services:
    """Open the database (bringing it to the present schema), the repository and the online keys, and note what was
    published just before a crash.

    Raises: SettingsError (also if another server has the folder), KeyRejected, RepositoryDamaged.
    """
    claim = _claim(settings.directory)
    try:
        return _open(settings, clock or SystemClock(), telemetry_today, claim)
    except BaseException:
        claim.close()
        raise


def _claim(directory: Path) -> BinaryIO:
    """Two servers would sign the same versions, judge the same rollouts and remove each other's uploads."""
    file = (directory / ".server.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise SettingsError(f"another server runs on {directory}: stop it first, or use another folder") from error
    return file


def _open(settings: Settings, clock: Clock, telemetry_today: Callable[[], date] | None, claim: BinaryIO) -> Services:
    publisher = open_publisher(settings, clock)
    engine = open_database(settings.database_url)
    settings.spool_dir.mkdir(exist_ok=True)
    settings.cloud_models.mkdir(exist_ok=True)
    for left_over in settings.spool_dir.glob("*.bundle"):
        left_over.unlink()
    deltas = DeltaLimits(releases=settings.delta_releases)
    releases = ReleaseService(engine, publisher, Blobs(settings.blobs_dir), clock, settings.expiry, deltas)
    policies = PolicyService(engine, publisher, clock, settings.expiry)
    releases.reconcile()
    policies.reconcile()
    rollouts = RolloutService(
        engine,
        publisher,
        clock,
        releases.check_published,
        policies.allows,
        lambda: secrets.token_hex(8),
        require_staging=settings.require_staging,
    )
    today = telemetry_today or (lambda: clock.now().date())
    telemetry = TelemetryService(engine, releases.manifest, today, random.SystemRandom(), settings.telemetry, clock.now)
    passwords = Passwords()
    return Services(
        claim=claim,
        settings=settings,
        clock=clock,
        engine=engine,
        repository=publisher.repository,
        access=Access(engine, clock),
        people=People(engine, clock, passwords),
        sessions=Sessions(engine, clock, passwords),
        devices=Devices(engine, clock),
        tokens=Tokens(engine, clock),
        releases=releases,
        policies=policies,
        rollouts=rollouts,
        telemetry=telemetry,
        controller=Controller(
            rollouts,
            publisher,
            settings.controller_interval_s,
            {
                "closing telemetry days": telemetry.close_finished_days,
                "looking for roles that expire": partial(watch_expiry, engine, publisher.repository, clock),
            },
        ),
    )
