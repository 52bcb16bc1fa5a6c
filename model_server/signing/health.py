"""How long each role's metadata is still valid, and when a person must act. An expired offline role blocks everything
below it, halts included, so the alerts come early."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from model_server.signing.repository import Repository
from model_server.signing.roles import delegated_models, releases_role, rollouts_role

__all__ = ["RoleHealth", "alert_level", "role_health"]

Alert = Literal["ok", "30 days", "14 days", "3 days", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleHealth:
    role: str
    version: int
    expires: datetime
    offline: bool
    alert: Alert


def role_health(repository: Repository, now: datetime) -> tuple[RoleHealth, ...]:
    """Every role that is published, top-level ones first."""
    targets = repository.top_level_targets().signed
    snapshot, timestamp = repository.snapshot().signed, repository.timestamp().signed
    root = repository.root().signed
    found = [
        _health(Root.type, root.version, root.expires, True, now),
        _health(Targets.type, targets.version, targets.expires, True, now),
        _health(Snapshot.type, snapshot.version, snapshot.expires, False, now),
        _health(Timestamp.type, timestamp.version, timestamp.expires, False, now),
    ]
    for model in delegated_models(targets):
        for role, offline in ((releases_role(model), True), (rollouts_role(model), False)):
            signed = repository.role(role).signed
            found.append(_health(role, signed.version, signed.expires, offline, now))
    return tuple(found)


def alert_level(expires: datetime, now: datetime, *, offline: bool) -> Alert:
    """Online roles are renewed by the server, so they alert only once they have expired. Pure."""
    days = (expires - now).total_seconds() / 86_400
    if days <= 0:
        return "expired"
    if offline and days <= 3:
        return "3 days"
    if offline and days <= 14:
        return "14 days"
    if offline and days <= 30:
        return "30 days"
    return "ok"


def _health(role: str, version: int, expires: datetime, offline: bool, now: datetime) -> RoleHealth:
    return RoleHealth(
        role=role,
        version=version,
        expires=expires,
        offline=offline,
        alert=alert_level(expires, now, offline=offline),
    )
