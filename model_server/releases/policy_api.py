"""Policies over HTTP, for release managers: everything under ``/v1/policies``."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from edge_runtime.bundle import PolicyDocument
from edge_runtime.bundle.limits import MAX_REVOKED
from edge_runtime.bundle.names import MAX_RELEASE
from model_server.releases.answers import signature_json
from model_server.releases.api import MAX_SIGNATURE_BODY, SignatureBody
from model_server.releases.policies import PendingPolicy, PolicyInfo, PolicyService
from model_server.web import AuthorizeRoute, capped_body, parse_body, person

__all__ = ["policies_router"]

MAX_BODY = 65_536


class PolicyBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    revoke: list[int] = Field(default=[], max_length=MAX_REVOKED)
    min_release: int | None = Field(default=None, ge=1, le=MAX_RELEASE)
    reason: str = Field(default="", max_length=2000)


def policies_router(
    service: PolicyService,
    authorize: AuthorizeRoute,
    published: Callable[[str], None],
    named: Callable[[str], list[dict[str, object]]],
) -> APIRouter:
    """Routes over ``service``. ``published`` is told the model whose policy devices see from now on; ``named`` lists
    the releases that plans name, of which the answers show those that a policy forbids."""
    router = APIRouter(prefix="/v1/policies", tags=["policies"])
    who = Depends(person(authorize))

    def shown(info: PolicyInfo) -> dict[str, object]:
        policy = info.policy if info.pending is None else info.pending.policy
        forbidden = [plan for plan in named(policy.model) if not policy.allows(cast(int, plan["release"]))]
        return {**_json(info), "forbids": forbidden}

    @router.get("/{model}")
    def show(model: str, actor: str = who) -> dict[str, object]:
        return shown(service.show(model))

    @router.post("/{model}", status_code=201)
    def propose(model: str, actor: str = who, body: bytes = Depends(capped_body(MAX_BODY))) -> dict[str, object]:
        sent = parse_body(PolicyBody, body)
        return shown(
            service.propose(model, revoke=sent.revoke, min_release=sent.min_release, reason=sent.reason, actor=actor)
        )

    @router.delete("/{model}", status_code=204)
    def withdraw(model: str, actor: str = who) -> None:
        service.withdraw(model, actor)

    @router.get("/{model}/metadata")
    def metadata(model: str, actor: str = who) -> Response:
        return Response(service.proposal(model), media_type="application/json")

    @router.get("/{model}/document")
    def document(model: str, actor: str = who) -> Response:
        return Response(service.document(model), media_type="application/json")

    @router.post("/{model}/signatures")
    def sign(model: str, actor: str = who, body: bytes = Depends(capped_body(MAX_SIGNATURE_BODY))) -> dict[str, object]:
        sent = parse_body(SignatureBody, body)
        return shown(service.add_signature(model, sent.keyid, sent.signature, actor))

    @router.post("/{model}/publish")
    def publish(model: str, actor: str = who) -> dict[str, object]:
        info = service.publish(model, actor)
        published(model)
        return shown(info)

    return router


def _json(info: PolicyInfo) -> dict[str, object]:
    return {
        **_policy(info.policy),
        "expires": info.expires.isoformat(),
        "threshold": info.threshold,
        "pending": None if info.pending is None else _pending(info.pending, info.threshold),
    }


def _policy(policy: PolicyDocument) -> dict[str, object]:
    return {"model": policy.model, "min_release": policy.min_release, "revoked": list(policy.revoked)}


def _pending(pending: PendingPolicy, threshold: int) -> dict[str, object]:
    return {
        **_policy(pending.policy),
        "reason": pending.reason,
        "metadata_version": pending.metadata_version,
        "expires": pending.expires.isoformat(),
        "signatures": [signature_json(known) for known in pending.signatures],
        "missing": max(0, threshold - len({known.person for known in pending.signatures})),
        "proposed_by": pending.proposed_by,
        "proposed_at": pending.proposed_at.isoformat(),
    }
