"""Alerts about expiry: raised once for each level, cleared when the role was signed again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from model_server.clock import Clock
from model_server.db.base import Lock, reading, writing
from model_server.signing.alert_tables import AlertRow
from model_server.signing.health import RoleHealth, role_health
from model_server.signing.published import PublishedRoles

__all__ = ["list_alerts", "watch_expiry"]

log = logging.getLogger(__name__)
PREFIX = "role/"


def watch_expiry(engine: Engine, published: PublishedRoles, clock: Clock) -> None:
    """Bring the open alerts in line with how long each role is still valid, and log what changed."""
    now = clock.now()
    health = role_health(published, now)
    with reading(engine) as session:  # on most ticks there is nothing to write
        if not _differences(session, health):
            return
    with writing(engine, Lock("alerts")) as session:
        for row, role in _differences(session, health):
            if row is not None:
                row.cleared = now
            if role is None or role.alert == "ok":
                if row is not None:
                    log.info("%s is valid again: %s", row.subject, "it was signed" if role else "it is gone")
                continue
            message = expiry_message(role, now)
            log.log(logging.ERROR if role.alert in ("expired", "3 days") else logging.WARNING, message)
            session.add(AlertRow(subject=PREFIX + role.role, level=role.alert, message=message, raised=now))


def expiry_message(role: RoleHealth, now: datetime) -> str:
    """What is the matter, what it does to devices, and what to do. Pure."""
    when = f"{role.expires:%Y-%m-%d %H:%M} UTC"
    if role.alert == "expired":
        what = f"{role.role} expired on {when}: devices keep what they run and take no update, halts included"
    else:
        what = f"{role.role} expires on {when}, in {(role.expires - now).days} days"
    if not role.offline:
        return f"{what}. The server renews it by itself: see why it does not in its log"
    model = role.role.removeprefix("releases-")
    if model != role.role:
        return f"{what}. Have it signed again: `edgeship-server release renew {model}`, then two people sign"
    return f"{what}. Have it signed again: `edgeship-server keys renew {role.role}`"


def list_alerts(engine: Engine) -> list[dict[str, str]]:
    """The open alerts, oldest first."""
    with reading(engine) as session:
        rows = session.execute(select(AlertRow).where(AlertRow.cleared.is_(None)).order_by(AlertRow.id)).scalars()
        return [
            {"subject": row.subject, "level": row.level, "message": row.message, "raised": row.raised.isoformat()}
            for row in rows
        ]


def _differences(session: Session, health: Sequence[RoleHealth]) -> list[tuple[AlertRow | None, RoleHealth | None]]:
    """(open alert, role) where the alert is not what the role needs."""
    rows = session.execute(
        select(AlertRow).where(AlertRow.cleared.is_(None), AlertRow.subject.startswith(PREFIX))
    ).scalars()
    there = {row.subject.removeprefix(PREFIX): row for row in rows}
    found: list[tuple[AlertRow | None, RoleHealth | None]] = [
        (there.get(role.role), role)
        for role in health
        if role.alert != (there[role.role].level if role.role in there else "ok")
    ]
    gone = there.keys() - {role.role for role in health}
    return found + [(row, None) for name, row in there.items() if name in gone]
