"""Telemetry over HTTP. Errors rise as `model_server.errors`; `model_server.app` turns them into problem details."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_runtime.telemetry.wire import MAX_REPORT_BYTES
from model_server.errors import Unauthorized, UnknownModel
from model_server.telemetry.service import TelemetryService
from model_server.web import AuthorizeRoute, answer_of, capped_body, parse_body, person

__all__ = ["Authorize", "telemetry_router"]

# Takes the Authorization header, answers who it is; raises Unauthorized, or answers None, to refuse.
Authorize = Callable[[str | None], str | None]

_ACCEPTED = b'{"accepted": true}'
_report_body = capped_body(MAX_REPORT_BYTES)
_baseline_body = capped_body(4096)


class BaselineRequest(BaseModel):
    """Days, both included, and the person who vouches for them."""

    model_config = ConfigDict(extra="forbid")

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    approved_by: str = Field(
        min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
    )


def telemetry_router(
    service: TelemetryService,
    authorize_device: Authorize,
    authorize: AuthorizeRoute,
    models: Callable[[], Sequence[str]] | None = None,
) -> APIRouter:
    """``POST /v1/telemetry`` for devices; ``GET /v1/drift/{model}``, ``POST /v1/drift/{model}/baseline`` and
    ``GET /v1/telemetry/{model}/days`` for people, who are told of a model that is not among ``models``."""
    router = APIRouter(tags=["telemetry"])

    async def post_report(request: Request) -> Response:
        # The caller's name is not kept: a report must not be joined with who sent it.
        if await answer_of(authorize_device, request.headers.get("authorization")) is None:
            raise Unauthorized("a telemetry report needs what proves a device: see docs/spec/enrolment.md")
        await service.submit(await _report_body(request))
        return Response(_ACCEPTED, status_code=202, media_type="application/json")

    # A plain Starlette route: every device calls it daily, and FastAPI's own would cost more than the work.
    router.add_route("/v1/telemetry", post_report, methods=["POST"])

    who = Depends(person(authorize))

    def known(model: str) -> str:
        if models is not None and model not in models():
            raise UnknownModel(f"no model {ascii(model)[:80]} is served here")
        return model

    @router.get("/v1/drift/{model}")
    def get_drift(model: str, actor: str = who) -> dict[str, object]:
        return service.drift(known(model))

    @router.post("/v1/drift/{model}/baseline", status_code=201)
    async def post_baseline(model: str, request: Request, actor: str = who) -> dict[str, object]:
        asked = parse_body(BaselineRequest, await _baseline_body(request))
        await run_in_threadpool(known, model)
        return await run_in_threadpool(
            service.approve_baseline, model, asked.first, asked.last, asked.approved_by, actor
        )

    @router.get("/v1/telemetry/{model}/days")
    def get_days(model: str, actor: str = who) -> dict[str, object]:
        return service.days(known(model))

    return router
