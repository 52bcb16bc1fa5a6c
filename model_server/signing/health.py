"""How long each role's metadata is still valid, and when a person must act. An expired offline role blocks everything
below it, halts included, so the alerts come early."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from model_server.signing.published import PublishedRoles

__all__ = ["RoleHealth", "alert_level", "role_health"]

Alert = Literal["ok", "30 days", "14 days", "3 days", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleHealth:
    role: str
    version: int
    expires: datetime
    offline: bool
    alert: Alert


def role_health(published: PublishedRoles, now: datetime) -> tuple[RoleHealth, ...]:
    """Every role that is published, top-level ones first. Raises RepositoryDamaged."""
    return tuple(
        RoleHealth(
            role=role.role,
            version=role.version,
            expires=role.expires,
            offline=role.offline,
            alert=alert_level(role.expires, now, offline=role.offline),
        )
        for role in published.all()
    )


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
