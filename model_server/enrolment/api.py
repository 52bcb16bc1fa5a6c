"""Enrolment over HTTP: a device that asks to be let in, and people who decide about tokens and devices."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from edge_runtime.enrolment.protocol import from_base64url
from model_server.enrolment.devices import Devices, Request
from model_server.enrolment.tokens import TokenLimits, Tokens
from model_server.errors import MalformedRequest
from model_server.web import AuthorizeRoute, capped_body, parse_body, person

__all__ = ["enrolment_router"]

MAX_BODY_BYTES = 4096
MAX_USES = 100_000_000
MAX_DAYS = 3650
PUBLIC_KEY_BYTES, SIGNATURE_BYTES = 32, 64

DeviceId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")]
Group = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
InPath = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9._-]+$")]
Base64url = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]


class DeviceBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    token: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
    device: DeviceId
    public_key: Base64url
    proof: Base64url


class TokenBody(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    uses: Annotated[int, Field(ge=1, le=MAX_USES)] = 1
    expires_days: Annotated[float, Field(gt=0, le=MAX_DAYS)]
    per_hour: Annotated[int, Field(ge=1, le=MAX_USES)] | None = None
    group: Group | None = None


def enrolment_router(devices: Devices, tokens: Tokens, people: AuthorizeRoute) -> APIRouter:
    """``POST /v1/devices`` for devices; ``/v1/enrolment`` for ``people``."""
    router = APIRouter(tags=["enrolment"])
    who = Depends(person(people))
    small_body = Depends(capped_body(MAX_BODY_BYTES))

    @router.post("/v1/devices", status_code=201)
    def enrol(response: Response, body: bytes = small_body) -> dict[str, object]:
        sent = parse_body(DeviceBody, body)
        new = devices.enrol(
            Request(
                token=sent.token,
                device=sent.device,
                public_key=_bytes("public_key", sent.public_key, PUBLIC_KEY_BYTES),
                proof=_bytes("proof", sent.proof, SIGNATURE_BYTES),
            )
        )
        if not new:
            response.status_code = 200
        return {"device": sent.device, "new": new}

    @router.get("/v1/enrolment/devices")
    def list_devices(
        actor: str = who,
        after: Annotated[str, Query(max_length=128, pattern=r"^[A-Za-z0-9._-]*$")] = "",
        group: Annotated[str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")] = None,
        limit: int = 100,
    ) -> dict[str, object]:
        return {"devices": devices.list(after=after, limit=min(max(limit, 1), 1000), group=group)}

    @router.post("/v1/enrolment/devices/{device}/revoke")
    def revoke_device(device: InPath, actor: str = who) -> dict[str, object]:
        return devices.revoke(device, actor)

    @router.post("/v1/enrolment/devices/{device}/reset")
    def reset_device(device: InPath, actor: str = who) -> dict[str, object]:
        return devices.reset(device, actor)

    @router.get("/v1/enrolment/tokens")
    def list_tokens(actor: str = who) -> dict[str, object]:
        return {"tokens": tokens.list()}

    @router.post("/v1/enrolment/tokens", status_code=201)
    def add_token(actor: str = who, body: bytes = small_body) -> dict[str, object]:
        asked = parse_body(TokenBody, body)
        made = tokens.add(
            TokenLimits(
                uses=asked.uses,
                valid=timedelta(days=asked.expires_days),
                per_hour=asked.per_hour,
                group=asked.group,
            ),
            actor,
        )
        return {"id": made.id, "token": made.secret, "expires": made.expires.isoformat()}

    @router.post("/v1/enrolment/tokens/{token}/revoke")
    def revoke_token(token: InPath, actor: str = who) -> dict[str, object]:
        return tokens.revoke(token, actor)

    return router


def _bytes(name: str, text: str, length: int) -> bytes:
    try:
        data = from_base64url(text)
    except ValueError as error:
        raise MalformedRequest(f"{name}: {error}") from error
    if len(data) != length:
        raise MalformedRequest(f"{name}: {length} bytes, not {len(data)}")
    return data
