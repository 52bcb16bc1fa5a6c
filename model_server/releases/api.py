"""The registry over HTTP, for release managers: everything under ``/v1/releases``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from model_server.client import repr_digest
from model_server.quantities import parse_ceiling
from model_server.releases.service import ReleaseInfo, ReleaseService
from model_server.releases.staging import DEFAULT_CEILING
from model_server.signing.proposals import SignatureInfo
from model_server.web import Authorize, caller, capped_body, parse_body, spool_body

__all__ = ["MAX_SIGNATURE_BODY", "SignatureBody", "releases_router", "signature_json"]

MAX_SIGNATURE_BODY = 16_384


class SignatureBody(BaseModel):
    keyid: str = Field(min_length=1, max_length=64)
    signature: str = Field(min_length=1, max_length=1024, pattern=r"^[0-9a-f]+$")


def releases_router(service: ReleaseService, authorize: Authorize, spool: Path, max_bundle_bytes: int) -> APIRouter:
    """Routes over ``service``. An uploaded bundle is spooled in ``spool`` and removed after it was read."""
    router = APIRouter(prefix="/v1/releases", tags=["releases"])
    who = Depends(caller(authorize))
    small_body = Depends(capped_body(MAX_SIGNATURE_BODY))

    @router.post("", status_code=201)
    async def stage(request: Request, actor: str = who, ceiling: str = DEFAULT_CEILING) -> dict[str, object]:
        steps = parse_ceiling(ceiling)
        path = spool / f"{secrets.token_hex(16)}.bundle"
        try:
            await spool_body(request, path, max_bundle_bytes)
            return _json(await run_in_threadpool(service.stage, path, steps, actor))
        finally:
            path.unlink(missing_ok=True)

    @router.get("/{model}")
    def list_releases(model: str, actor: str = who) -> dict[str, object]:
        return {"model": model, "releases": [_json(info) for info in service.list(model)]}

    @router.get("/{model}/{release}")
    def show(model: str, release: int, actor: str = who) -> dict[str, object]:
        return _json(service.show(model, release))

    @router.delete("/{model}/{release}", status_code=204)
    def withdraw(model: str, release: int, actor: str = who) -> None:
        service.withdraw(model, release, actor)

    @router.get("/{model}/{release}/metadata")
    def proposal(model: str, release: int, actor: str = who) -> Response:
        return Response(service.proposal(model, release), media_type="application/json")

    @router.get("/{model}/{release}/files/{file}")
    def file(model: str, release: int, file: str, actor: str = who) -> Response:
        return Response(service.read_file(model, release, file), media_type="application/octet-stream")

    @router.get("/{model}/{release}/bundle")
    def export(model: str, release: int, actor: str = who) -> Response:
        path = spool / f"{secrets.token_hex(16)}.bundle"
        try:
            sha256 = service.export(model, release, path)
            file = path.open("rb")  # which stays readable without its name, for as long as it takes to send
        finally:
            path.unlink(missing_ok=True)
        headers = {"content-length": str(os.fstat(file.fileno()).st_size), "repr-digest": repr_digest(sha256)}
        return StreamingResponse(_pieces(file), media_type="application/octet-stream", headers=headers)

    @router.post("/{model}/{release}/signatures")
    def sign(model: str, release: int, actor: str = who, body: bytes = small_body) -> dict[str, object]:
        sent = parse_body(SignatureBody, body)
        return _json(service.add_signature(model, release, sent.keyid, sent.signature, actor))

    @router.post("/{model}/{release}/publish")
    def publish(model: str, release: int, actor: str = who) -> dict[str, object]:
        return _json(service.publish(model, release, actor))

    return router


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(1 << 20):
            yield piece


def signature_json(known: SignatureInfo) -> dict[str, str]:
    return {"person": known.person, "keyid": known.keyid, "signed_at": known.signed_at.isoformat()}


def _json(info: ReleaseInfo) -> dict[str, object]:
    return {
        "model": info.model,
        "release": info.release,
        "version": info.version,
        "state": info.state.value,
        "bundle_sha256": info.bundle_sha256,
        "metadata_version": info.metadata_version,
        "files": [{"file": ref.file, "bytes": ref.bytes, "sha256": ref.sha256} for ref in info.files],
        "signatures": [signature_json(known) for known in info.signatures],
        "threshold": info.threshold,
        "missing": max(0, info.threshold - len({known.person for known in info.signatures})),
        "staged_by": info.staged_by,
        "staged_at": info.staged_at.isoformat(),
        "published_at": info.published_at.isoformat() if info.published_at else None,
    }
