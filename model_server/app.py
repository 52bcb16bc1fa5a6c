"""The server as one ASGI app: static files for devices, their reports, the cloud endpoint, and the managers' API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_runtime.bundle.errors import BundleError, BundleTooLarge, EdgeshipError
from edge_runtime.errors import ReportError
from model_server.clock import Clock
from model_server.db.credentials import Kind
from model_server.errors import (
    BaselineRefused,
    BodyTooLarge,
    DuplicateReport,
    Forbidden,
    IngestBusy,
    InvalidRollout,
    KeyRejected,
    MethodRefused,
    ModelUnavailable,
    NotFound,
    QueueFull,
    ReleaseConflict,
    ReleaseNotNewer,
    ReportRefused,
    RequestError,
    RolloutConflict,
    ServerError,
    SignatureRejected,
    StorageFull,
    StorageUnavailable,
    ThresholdNotMet,
    Unauthorized,
)
from model_server.inference.app import create_inference_app
from model_server.releases.api import releases_router
from model_server.releases.policy_api import policies_router
from model_server.rollouts.api import outcomes_router, rollouts_router
from model_server.rollouts.status import list_rollouts
from model_server.services import Services, open_services
from model_server.settings import Settings
from model_server.signing.alerts import list_alerts
from model_server.signing.health import role_health
from model_server.signing.static import MetadataFiles, TargetFiles
from model_server.telemetry.api import telemetry_router
from model_server.web import Authorize, add_problems, caller

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
    NotFound: 404,
    KeyRejected: 422,
    SignatureRejected: 422,
    ThresholdNotMet: 409,
    ReleaseNotNewer: 409,
    ReleaseConflict: 409,
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
    services = open_services(settings, clock=clock, telemetry_today=telemetry_today)
    admin = services.credentials.require(Kind.ADMIN)
    device = services.credentials.require(Kind.FLEET, Kind.ADMIN)
    inference = create_inference_app(settings.cloud_models, device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services.controller.start()
        try:
            yield
        finally:
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
        outcomes_router(services.engine, services.clock, device, services.releases.models, services.controller.nudge)
    )
    app.include_router(
        releases_router(services.releases, admin, settings.spool_dir, max_bundle_bytes=settings.max_bundle_bytes)
    )
    app.include_router(
        policies_router(services.policies, admin, partial(_policy_published, services), services.rollouts.named)
    )
    app.include_router(
        rollouts_router(services.rollouts, services.engine, services.clock, admin, services.releases.ceiling)
    )
    app.include_router(telemetry_router(services.telemetry, device, admin, services.releases.models))
    app.include_router(_status_router(services, admin))
    app.add_middleware(Dispatch, apps={"/v2": inference})
    app.put_before(
        {
            "/metadata": MetadataFiles(services.repository.metadata),
            "/targets": TargetFiles(services.repository.targets),
        }
    )
    return app


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


def _status_router(services: Services, admin: Authorize) -> APIRouter:
    router = APIRouter(tags=["status"])
    who = Depends(caller(admin))

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
