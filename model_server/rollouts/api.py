"""Rollouts and outcome reports over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Engine, select

from edge_runtime.bundle import check_channel, check_model
from model_server.clock import Clock
from model_server.db.base import reading
from model_server.errors import UnknownModel
from model_server.quantities import parse_share
from model_server.rollouts.guardrails import Limits
from model_server.rollouts.ingest import ingest
from model_server.rollouts.outcomes import Counters, InstallOutcome, Report
from model_server.rollouts.service import RolloutService, StartRequest
from model_server.rollouts.status import CeilingOf, list_rollouts, rollout_status
from model_server.rollouts.tables import DeviceRow
from model_server.web import Authorize, AuthorizeRoute, caller, capped_body, parse_body, person, spread_s

__all__ = ["outcomes_router", "rollouts_router"]

MAX_REPORT_BYTES = 65_536
REPORT_SPREAD = 0.1  # of the interval between two reports
MAX_ROLLOUT_BYTES = 16_384
MAX_COUNT = 2**40  # of one counter in one report
LATENCY_BINS = 16 * 24

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Release = Annotated[int, Field(ge=1, le=2**31 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")]
# PostgreSQL keeps no NUL in a text.
Printable = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
RolloutId = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Scalar = Annotated[str, Field(max_length=128)] | bool | int | float
Bins = Annotated[list[tuple[Annotated[int, Field(ge=0, lt=LATENCY_BINS)], Count]], Field(max_length=LATENCY_BINS)]


class _Body(BaseModel):
    """Finite numbers only; keys that this server does not know are ignored, since newer devices may send them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


class LatencyBody(_Body):
    device: Bins = []
    cloud: Bins = []


class CountersBody(_Body):
    release: Release
    arm: Literal["candidate", "baseline", "holdback", "none"]
    requests: Count
    errors: Count = 0
    fallbacks: Count = 0
    refused: Count = 0
    latency_us: LatencyBody = LatencyBody()


class OutcomeBody(_Body):
    outcome: Printable
    release: Release | None = None
    detail: Annotated[str, Field(max_length=200)] = ""


class ReportBody(_Body):
    format: Literal[1]
    device: Name
    model: Annotated[str, AfterValidator(check_model)]
    channel: Annotated[str, AfterValidator(check_channel)]
    sequence: Annotated[int, Field(ge=0, le=2**53)]
    attributes: Annotated[dict[Annotated[str, Field(max_length=64)], Scalar], Field(max_length=32)] = {}
    running: Release | None = None
    arm: Literal["candidate", "baseline", "holdback", "none"] = "none"
    rollout: RolloutId | None = None
    attempt: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    outcomes: Annotated[list[OutcomeBody], Field(max_length=64)] = []
    counters: Annotated[list[CountersBody], Field(max_length=32)] = []


class RolloutBody(_Body):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    candidate: Release
    baseline: Release | None = None
    stages: Annotated[list[Annotated[str, Field(max_length=32)]], Field(min_length=1, max_length=32)] = [
        "1%",
        "10%",
        "50%",
        "all",
    ]
    holdback: Annotated[str, Field(max_length=32)] = "5%"
    on_breach: Literal["halt", "rollback"] = "halt"
    growth: Literal["auto", "manual"] = "manual"
    predicate: dict[str, Any] | None = None
    salt: Annotated[str, Field(max_length=64)] | None = None
    limits: Annotated[dict[str, float], Field(max_length=32)] = {}


def outcomes_router(
    engine: Engine,
    clock: Clock,
    authorize: Authorize,
    models: Callable[[], tuple[str, ...]],
    news: Callable[[str, str], None],
    *,
    check_reporter: Callable[[str, str], None],
    interval_s: float = 0.0,
) -> APIRouter:
    """``POST /v1/outcomes``. ``models`` are the delegated ones; ``news`` is told the model and channel of each report
    that was taken in. ``check_reporter`` raises where a caller may not report for a device; devices are asked to leave
    ``interval_s`` between two reports."""
    router = APIRouter(tags=["devices"])
    who = Depends(caller(authorize))
    report_body = Depends(capped_body(MAX_REPORT_BYTES))

    @router.post("/v1/outcomes", status_code=202)
    def outcomes(response: Response, actor: str = who, body: bytes = report_body) -> dict[str, object]:
        report = _report(parse_body(ReportBody, body))
        if report.model not in models():
            raise UnknownModel(f"no model {report.model!r} is served here")
        check_reporter(actor, report.device)
        if interval_s:
            response.headers["retry-after"] = str(spread_s(interval_s, REPORT_SPREAD))
        fresh = ingest(engine, clock, report)
        if fresh:
            news(report.model, report.channel)
        else:
            response.status_code = 200
        return {"accepted": True, "duplicate": not fresh}

    return router


def rollouts_router(
    service: RolloutService, engine: Engine, clock: Clock, authorize: AuthorizeRoute, ceiling: CeilingOf
) -> APIRouter:
    """``/v1/rollouts`` and ``/v1/devices``, for release managers."""
    router = APIRouter(tags=["rollouts"])
    who = Depends(person(authorize))
    small_body = Depends(capped_body(MAX_ROLLOUT_BYTES))

    @router.get("/v1/rollouts")
    def every(actor: str = who) -> dict[str, object]:
        return {"rollouts": list_rollouts(engine)}

    @router.get("/v1/rollouts/{channel}/{model}")
    def status(channel: str, model: str, actor: str = who) -> dict[str, object]:
        return rollout_status(engine, model, channel, clock.now(), ceiling)

    @router.post("/v1/rollouts/{channel}/{model}", status_code=201)
    def start(channel: str, model: str, actor: str = who, body: bytes = small_body) -> dict[str, object]:
        sent = parse_body(RolloutBody, body)
        request = StartRequest(
            model=model,
            channel=channel,
            candidate=sent.candidate,
            baseline=sent.baseline,
            stages=tuple(sent.stages),
            holdback=parse_share(sent.holdback),
            on_breach=sent.on_breach,
            growth=sent.growth,
            predicate=sent.predicate,
            salt=sent.salt,
            limits=Limits.from_dict(sent.limits),
        )
        service.start(request, actor)
        return rollout_status(engine, model, channel, clock.now(), ceiling)

    @router.post("/v1/rollouts/{channel}/{model}/{action}")
    def act(channel: str, model: str, action: str, actor: str = who) -> dict[str, object]:
        service.act(model, channel, action, actor)
        service.evaluate(model, channel)
        return rollout_status(engine, model, channel, clock.now(), ceiling)

    @router.get("/v1/devices")
    def devices(
        actor: str = who,
        model: str | None = None,
        after: Annotated[str, Query(max_length=128, pattern=r"^[A-Za-z0-9._:-]*$")] = "",
        limit: int = 100,
    ) -> dict[str, object]:
        query = select(DeviceRow).where(DeviceRow.device > after).order_by(DeviceRow.device, DeviceRow.model)
        if model is not None:
            query = query.where(DeviceRow.model == check_model(model))
        with reading(engine) as session:
            rows = session.execute(query.limit(min(max(limit, 1), 1000))).scalars().all()
            return {"devices": [_device(row) for row in rows]}

    return router


def _report(body: ReportBody) -> Report:
    return Report(
        device=body.device,
        model=body.model,
        channel=body.channel,
        sequence=body.sequence,
        attributes=body.attributes,
        running=body.running,
        arm=body.arm,
        rollout=body.rollout,
        attempt=body.attempt,
        outcomes=tuple(
            InstallOutcome(outcome=entry.outcome, release=entry.release, detail=entry.detail) for entry in body.outcomes
        ),
        counters=tuple(
            Counters(
                release=entry.release,
                arm=entry.arm,
                requests=entry.requests,
                errors=entry.errors,
                fallbacks=entry.fallbacks,
                refused=entry.refused,
                latency_device=dict(entry.latency_us.device),
                latency_cloud=dict(entry.latency_us.cloud),
            )
            for entry in body.counters
        ),
    )


def _device(row: DeviceRow) -> dict[str, object]:
    return {
        "device": row.device,
        "model": row.model,
        "channel": row.channel,
        "running": row.running,
        "arm": row.arm,
        "rollout": row.rollout,
        "sequence": row.sequence,
        "first_seen": row.first_seen.isoformat(),
        "last_seen": row.last_seen.isoformat(),
    }
