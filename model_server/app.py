"""The server as one ASGI app: static files for devices, their reports, the cloud endpoint, and the managers' API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_runtime.bundle.errors import BundleError, BundleTooLarge, EdgeshipError
from edge_runtime.errors import ReportError
from model_server.access.api import people_router, sessions_router
from model_server.clock import Clock
from model_server.enrolment.api import enrolment_router
from model_server.enrolment.gate import Audiences, DeviceGate, SignedBody
from model_server.errors import (
    BaselineRefused,
    BodyTooLarge,
    DeviceTaken,
    DuplicateReport,
    EnrolmentBusy,
    EnrolmentError,
    Forbidden,
    IngestBusy,
    InvalidRollout,
    JobConflict,
    JobQueueFull,
    KeyRejected,
    MethodRefused,
    ModelUnavailable,
    NotFound,
    PasswordRefused,
    PersonConflict,
    ProofRejected,
    QueueFull,
    ReadinessRefused,
    ReleaseConflict,
    ReleaseNotNewer,
    ReportRefused,
    RequestError,
    RolloutConflict,
    ServerError,
    SignatureRejected,
    SignerFailed,
    StorageFull,
    StorageUnavailable,
    ThresholdNotMet,
    TooManyTries,
    Unauthorized,
)
from model_server.inference.app import create_inference_app
from model_server.problems import problem_of
from model_server.releases.api import releases_router
from model_server.releases.jobs.api import jobs_router
from model_server.releases.policy_api import policies_router
from model_server.rollouts.api import outcomes_router, rollouts_router
from model_server.rollouts.status import list_rollouts
from model_server.services import Services, open_services
from model_server.settings import Settings
from model_server.signing.alerts import list_alerts
from model_server.signing.health import role_health
from model_server.signing.repository import METADATA, TARGETS
from model_server.signing.static import MetadataFiles, TargetFiles
from model_server.storage.protocol import Storage
from model_server.telemetry.api import telemetry_router
from model_server.web import AuthorizeRoute, add_problems, person

__all__ = ["STATUSES", "create_app"]

# The one place that knows HTTP statuses. An error that is not here has the status of its closest base class.
STATUSES: Mapping[type[EdgeshipError], int] = {
    EdgeshipError: 500,
    BundleError: 422,
    BundleTooLarge: 413,
    ReportError: 422,
    ServerError: 500,
    StorageFull: 507,
    StorageUnavailable: 503,
    RequestError: 400,
    MethodRefused: 405,
    BodyTooLarge: 413,
    Unauthorized: 401,
    Forbidden: 403,
    TooManyTries: 429,
    PasswordRefused: 422,
    PersonConflict: 409,
    NotFound: 404,
    EnrolmentError: 403,
    EnrolmentBusy: 429,
    ProofRejected: 422,
    DeviceTaken: 409,
    KeyRejected: 422,
    SignerFailed: 503,
    SignatureRejected: 422,
    ThresholdNotMet: 409,
    ReleaseNotNewer: 409,
    ReleaseConflict: 409,
    ReadinessRefused: 422,
    JobQueueFull: 429,
    JobConflict: 409,
    InvalidRollout: 422,
    RolloutConflict: 409,
    ReportRefused: 422,
    DuplicateReport: 409,
    IngestBusy: 429,
    BaselineRefused: 409,
    QueueFull: 429,
    ModelUnavailable: 503,
}


def create_app(
    settings: Settings, *, clock: Clock | None = None, telemetry_today: Callable[[], date] | None = None
) -> FastAPI:
    """The app for a server's folder that `init` made. ``clock`` and ``telemetry_today`` let tests move time.

    The controller runs while the app does. Raises: SettingsError, KeyRejected, RepositoryDamaged.
    """
    services = open_services(
        settings, clock=clock, telemetry_today=telemetry_today, problem_of=partial(problem_of, statuses=STATUSES)
    )

    def people(route: str, authorization: str | None) -> str:
        return services.access.of_route(route, authorization).actor

    device = DeviceGate(
        services.devices,
        Audiences(services.repository),
        services.clock,
        services.access.devices(),
        fleet_token=settings.fleet_token,
    )
    inference = create_inference_app(settings.cloud_models, device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services.controller.start()
        services.jobs.start()
        try:
            yield
        finally:
            services.jobs.stop()
            services.controller.stop()
            inference.close()
            services.telemetry.close()
            services.engine.dispose()
            services.claim.close()

    app = _App(
        title="Edgeship",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # the page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.services = services
    add_problems(app, STATUSES)
    app.include_router(
        outcomes_router(
            services.engine,
            services.clock,
            device,
            services.releases.models,
            services.controller.nudge,
            check_reporter=device.check_reporter,
            interval_s=settings.minimum_report_interval_s,
        )
    )
    app.include_router(enrolment_router(services.devices, services.tokens, people))
    app.include_router(
        releases_router(services.releases, services.jobs, people, settings.spool_dir, settings.max_bundle_bytes)
    )
    app.include_router(
        policies_router(services.policies, people, partial(_policy_published, services), services.rollouts.named)
    )
    app.include_router(jobs_router(services.jobs, services.releases, people))
    app.include_router(
        rollouts_router(services.rollouts, services.engine, services.clock, people, services.releases.ceiling)
    )
    app.include_router(telemetry_router(services.telemetry, device, people, services.releases.models))
    app.include_router(sessions_router(services.access, services.sessions))
    app.include_router(people_router(services.access, services.people))
    app.include_router(_status_router(services, people))
    app.add_middleware(SignedBody)
    app.add_middleware(Dispatch, apps={"/v2": SignedBody(inference)})
    app.put_before(_static_files(services.repository.storage, settings.mirror_dir))
    return app


def _static_files(storage: Storage, mirror: Path) -> Mapping[str, ASGIApp]:
    metadata, targets = storage.path(METADATA), storage.path(TARGETS)
    if metadata is None or targets is None:
        from model_server.signing.static_objects import MirroredMetadata, StoredTargets

        files = MirroredMetadata(storage, mirror, MetadataFiles(mirror))
        return {"/metadata": files, "/targets": StoredTargets(storage)}
    return {"/metadata": MetadataFiles(metadata), "/targets": TargetFiles(targets)}


def _policy_published(services: Services, model: str) -> None:
    """A rollout of a release that is revoked from now on is halted at once, not on the next tick."""
    for channel in services.rollouts.channels(model):
        services.controller.nudge(model, channel)


class Dispatch:
    """Sends some paths straight to bare ASGI apps, past what ``app`` does with the others."""

    def __init__(self, app: ASGIApp, apps: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._apps = dict(apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = self._app
        if scope["type"] == "http":
            path = scope["path"]
            for prefix, app in self._apps.items():
                if path == prefix or path.startswith(f"{prefix}/"):
                    target = app
                    break
        await target(scope, receive, send)


class _App(FastAPI):
    """What devices ask for most never enters the framework, which takes longer over it than the answer does."""

    _front: ASGIApp

    def put_before(self, apps: Mapping[str, ASGIApp]) -> None:
        """Before the first request, and once."""
        self._front = Dispatch(super().__call__, apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)


def _status_router(services: Services, authorize: AuthorizeRoute) -> APIRouter:
    router = APIRouter(tags=["status"])
    who = Depends(person(authorize))

    @router.get("/v1/status")
    def status(actor: str = who) -> dict[str, object]:
        now = services.clock.now()
        models = services.releases.models()
        return {
            "version": _version(),
            "time": now.isoformat(),
            "models": {
                model: [
                    {"release": info.release, "version": info.version, "state": info.state.value}
                    for info in services.releases.list(model)
                ]
                for model in models
            },
            "roles": [
                {
                    "role": role.role,
                    "version": role.version,
                    "expires": role.expires.isoformat(),
                    "offline": role.offline,
                    "alert": role.alert,
                }
                for role in role_health(services.published, now)
            ],
            "alerts": list_alerts(services.engine),
            "rollouts": list_rollouts(services.engine),
        }

    return router


def _version() -> str:
    try:
        return version("edgeship")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
