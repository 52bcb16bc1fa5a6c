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
from model_server.quantities import DEFAULT_CEILING, parse_ceiling
from model_server.releases.answers import release_json
from model_server.releases.jobs.api import job_json
from model_server.releases.jobs.service import JobService
from model_server.releases.jobs.store import Options
from model_server.releases.service import ReleaseService
from model_server.web import AuthorizeRoute, capped_body, parse_body, person, spool_body

__all__ = ["MAX_SIGNATURE_BODY", "SignatureBody", "releases_router"]

MAX_SIGNATURE_BODY = 16_384


class SignatureBody(BaseModel):
    keyid: str = Field(min_length=1, max_length=64)
    signature: str = Field(min_length=1, max_length=1024, pattern=r"^[0-9a-f]+$")


def releases_router(
    service: ReleaseService, jobs: JobService, authorize: AuthorizeRoute, scratch: Path, max_bundle_bytes: int
) -> APIRouter:
    """Routes over ``service``, and the upload of a bundle, which ``jobs`` stages. Exports are made in ``scratch``; what
    a crash leaves of one there is removed at the next start."""
    router = APIRouter(prefix="/v1/releases", tags=["releases"])
    who = Depends(person(authorize))
    small_body = Depends(capped_body(MAX_SIGNATURE_BODY))

    @router.post("", status_code=202)
    async def stage(
        request: Request,
        response: Response,
        actor: str = who,
        ceiling: str = DEFAULT_CEILING,
        allow_interface_change: bool = False,
    ) -> dict[str, object]:
        options = Options(ceiling=parse_ceiling(ceiling), allow_interface_change=allow_interface_change)
        await run_in_threadpool(jobs.reserve)
        job, path = jobs.new_upload()
        try:
            sha256 = await spool_body(request, path, max_bundle_bytes)
            info = await run_in_threadpool(jobs.submit, job, path, sha256, options, actor)
        finally:
            path.unlink(missing_ok=True)
            jobs.release()
        response.headers["location"] = f"/v1/jobs/{info.id}"
        return job_json(info)

    @router.get("/{model}")
    def list_releases(model: str, actor: str = who) -> dict[str, object]:
        return {"model": model, "releases": [release_json(info) for info in service.list(model)]}

    @router.get("/{model}/{release}")
    def show(model: str, release: int, actor: str = who) -> dict[str, object]:
        return release_json(service.show(model, release))

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
        path = scratch / f"{secrets.token_hex(16)}.part"
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
        return release_json(service.add_signature(model, release, sent.keyid, sent.signature, actor))

    @router.post("/{model}/{release}/publish")
    def publish(model: str, release: int, actor: str = who) -> dict[str, object]:
        return release_json(service.publish(model, release, actor))

    return router


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(1 << 20):
            yield piece
