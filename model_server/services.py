"""Putting the server's parts together, from its settings. Nothing listens and nothing runs in the background yet."""

from __future__ import annotations

import fcntl
import random
import secrets
import socket
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
from model_server.installation import open_publisher
from model_server.problems import problem_of as default_problem_of
from model_server.releases.blobs import Blobs
from model_server.releases.delta.offering import DeltaLimits
from model_server.releases.jobs.service import JobService
from model_server.releases.jobs.spool import Spool
from model_server.releases.jobs.store import JobStore, ProblemOf
from model_server.releases.policies import PolicyService
from model_server.releases.readiness.gate import Gate
from model_server.releases.service import ReleaseService
from model_server.rollouts.controller import Controller
from model_server.rollouts.service import RolloutService
from model_server.settings import Settings
from model_server.signing.alerts import watch_expiry
from model_server.signing.published import PublishedRoles, renewal_due
from model_server.signing.publisher import Publisher
from model_server.signing.repository import Repository
from model_server.signing.roles import Expiry
from model_server.telemetry.service import TelemetryService

__all__ = ["Services", "open_services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """``claim`` is open, and locked, while this server has its folder to itself."""

    claim: BinaryIO
    settings: Settings
    clock: Clock
    engine: Engine
    repository: Repository
    published: PublishedRoles
    access: Access
    people: People
    sessions: Sessions
    devices: Devices
    tokens: Tokens
    releases: ReleaseService
    jobs: JobService
    policies: PolicyService
    rollouts: RolloutService
    telemetry: TelemetryService
    controller: Controller


def open_services(
    settings: Settings,
    *,
    clock: Clock | None = None,
    telemetry_today: Callable[[], date] | None = None,
    problem_of: ProblemOf | None = None,
) -> Services:
    """Open the database (bringing it to the present schema), the repository and the online keys, and note what was
    published just before a crash. ``problem_of`` says how jobs that failed are answered.

    Raises: SettingsError (also if another server has the folder), KeyRejected, RepositoryDamaged.
    """
    claim = _claim(settings.directory)
    try:
        return _open(
            settings,
            clock or SystemClock(),
            telemetry_today,
            problem_of or partial(default_problem_of, statuses={}),
            claim,
        )
    except BaseException:
        claim.close()
        raise


def _claim(directory: Path) -> BinaryIO:
    """Two servers in one folder would remove each other's uploads. Two of one installation have a folder each."""
    file = (directory / ".server.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise SettingsError(f"another server runs on {directory}: stop it first, or use another folder") from error
    return file


def _open(
    settings: Settings,
    clock: Clock,
    telemetry_today: Callable[[], date] | None,
    problem_of: ProblemOf,
    claim: BinaryIO,
) -> Services:
    engine = open_database(settings.database_url)
    publisher = open_publisher(settings, clock, engine)
    settings.cloud_models.mkdir(exist_ok=True)
    deltas = DeltaLimits(releases=settings.delta_releases)
    gate = Gate(
        command=settings.readiness,
        timeout_s=settings.readiness_timeout_s,
        max_accuracy_drop=settings.max_accuracy_drop,
    )
    blobs = Blobs(publisher.repository.storage)
    releases = ReleaseService(engine, publisher, blobs, clock, settings.expiry, deltas, gate)
    here = f"{socket.gethostname()}:{settings.directory.resolve()}"
    jobs = JobService(JobStore(engine, clock, here, problem_of), Spool(settings.spool_dir), releases.stage, problem_of)
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
    published = PublishedRoles(publisher.repository)
    telemetry = TelemetryService(engine, releases.manifest, today, random.SystemRandom(), settings.telemetry, clock.now)
    passwords = Passwords()
    return Services(
        claim=claim,
        settings=settings,
        clock=clock,
        engine=engine,
        repository=publisher.repository,
        published=published,
        access=Access(engine, clock),
        people=People(engine, clock, passwords),
        sessions=Sessions(engine, clock, passwords),
        devices=Devices(engine, clock),
        tokens=Tokens(engine, clock),
        releases=releases,
        jobs=jobs,
        policies=policies,
        rollouts=rollouts,
        telemetry=telemetry,
        controller=Controller(
            rollouts,
            partial(_renew, publisher, published, settings.expiry, clock),
            settings.controller_interval_s,
            {
                "closing telemetry days": telemetry.close_finished_days,
                "looking for roles that expire": partial(watch_expiry, engine, published, clock),
            },
        ),
    )


def _renew(publisher: Publisher, published: PublishedRoles, expiry: Expiry, clock: Clock) -> tuple[str, ...]:
    """To find out what is due, the publisher reads every role: seconds at 1,000 models, and nothing is, mostly."""
    return publisher.renew() if renewal_due(published.all(), expiry, clock.now()) else ()
