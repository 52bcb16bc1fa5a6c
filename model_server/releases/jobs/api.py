"""Jobs over HTTP: everything under ``/v1/jobs``."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from model_server.errors import NotFound
from model_server.quantities import format_ceiling
from model_server.releases.answers import release_json
from model_server.releases.jobs.service import JobService
from model_server.releases.jobs.store import JobInfo
from model_server.releases.jobs.tables import JobState
from model_server.releases.service import ReleaseService
from model_server.web import AuthorizeRoute, person

__all__ = ["job_json", "jobs_router"]


def jobs_router(jobs: JobService, releases: ReleaseService, authorize: AuthorizeRoute) -> APIRouter:
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    who = Depends(person(authorize))

    @router.get("")
    def list_jobs(actor: str = who) -> dict[str, object]:
        return {"jobs": [job_json(info) for info in jobs.list()]}

    @router.get("/{job}")
    def show(job: str, actor: str = who) -> dict[str, object]:
        info = jobs.get(job)
        return {**job_json(info), "staged": _staged(releases, info)}

    @router.delete("/{job}", status_code=202)
    def cancel(job: str, actor: str = who) -> dict[str, object]:
        return job_json(jobs.cancel(job))

    return router


def job_json(info: JobInfo) -> dict[str, object]:
    """``progress`` is for people, the parts of it are for programs."""
    return {
        "id": info.id,
        "kind": "release.stage",
        "state": info.state.value,
        "cancelling": info.cancelling,
        "progress": f"{info.stage} {info.step} of {info.steps}" if info.steps else info.stage,
        "stage": info.stage or None,
        "step": info.step,
        "steps": info.steps,
        "model": info.model,
        "release": info.release,
        "problem": info.problem,
        "bundle_sha256": info.bundle_sha256,
        "bytes": info.bytes,
        "ceiling": format_ceiling(info.options.ceiling),
        "allow_interface_change": info.options.allow_interface_change,
        "server": info.server,
        "heard": info.heard.isoformat(),
        "created_by": info.created_by,
        "created": info.created.isoformat(),
        "started": info.started.isoformat() if info.started else None,
        "ended": info.ended.isoformat() if info.ended else None,
    }


def _staged(releases: ReleaseService, info: JobInfo) -> dict[str, object] | None:
    """The release as it is now; None before it is staged, and once it was withdrawn."""
    if info.state is not JobState.DONE or info.model is None or info.release is None:
        return None
    try:
        return release_json(releases.show(info.model, info.release))
    except NotFound:
        return None
