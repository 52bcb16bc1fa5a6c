"""Who calls, and whether they may."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from sqlalchemy import Engine, or_, select, update
from sqlalchemy.exc import OperationalError

from model_server.access.credentials import FleetTokens
from model_server.access.keys import digest_of
from model_server.access.roles import DEVICE_PERMISSIONS, ROUTES, Permission, Role, least_role, may
from model_server.access.tables import PersonKeyRow, PersonRow
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import Lock, reading, writing
from model_server.errors import Forbidden, Unauthorized

__all__ = ["Access", "Caller", "Kind"]

log = logging.getLogger(__name__)
MAX_TOKEN = 200
UNKNOWN = "send a key that this server knows and that is still valid, as `Authorization: Bearer <key>`"


class Kind(StrEnum):
    PERSON = "person"
    FLEET = "fleet"  # any device, by the token that all share


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """``role`` and ``key`` (the id of the key that was shown) are a person's."""

    kind: Kind
    name: str
    role: Role | None = None
    key: str | None = None

    @property
    def actor(self) -> str:
        """As the audit log and the events of a rollout name them."""
        return f"{self.kind}:{self.name}"

    def may(self, permission: Permission) -> bool:
        if self.role is not None:
            return may(self.role, permission)
        return permission in DEVICE_PERMISSIONS


class Access:
    """Callers by their ``Authorization`` header. Each scheme is a function from what follows its name."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._fleet = FleetTokens(engine, clock)
        self._schemes: dict[str, Callable[[str], Caller | None]] = {"bearer": self._bearer}

    def identify(self, authorization: str | None) -> Caller | None:
        """The caller, or None for a key that is missing, unknown, expired or revoked, or whose person is disabled."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        find = self._schemes.get(scheme.lower())
        if find is None or not token or len(token) > MAX_TOKEN:
            return None
        return find(token)

    def require(self, permission: Permission, what: str = "this") -> Callable[[str | None], Caller]:
        """A check that returns the caller. It raises Unauthorized, or Forbidden, which the audit log hears of where a
        person was refused; ``what`` they asked for stands there."""

        def check(authorization: str | None) -> Caller:
            caller = self.identify(authorization)
            if caller is None:
                raise Unauthorized(UNKNOWN)
            if not caller.may(permission):
                raise self._refusal(caller, permission, what)
            return caller

        return check

    def of_route(self, route: str, authorization: str | None) -> Caller:
        """The caller of a route of `ROUTES`, as in ``GET /v1/status``. Raises Unauthorized, Forbidden."""
        return self.require(ROUTES[route], route)(authorization)

    def devices(self) -> Callable[[str | None], str]:
        """The check of everything that devices send; it returns the caller's name."""
        check = self.require(Permission.DEVICE, "what devices send")
        return lambda authorization: check(authorization).actor

    def _bearer(self, token: str) -> Caller | None:
        if token.startswith("esf_"):
            name = self._fleet.name_of(token)
            return None if name is None else Caller(kind=Kind.FLEET, name=name)
        return self._person(token)

    def _person(self, token: str) -> Caller | None:
        """Asked of the database each time: what was revoked a moment ago, by another server too, opens nothing."""
        now = self._clock.now()
        query = (
            select(PersonKeyRow.id, PersonKeyRow.last_used, PersonRow.name, PersonRow.role)
            .join(PersonRow, PersonRow.name == PersonKeyRow.person)
            .where(
                PersonKeyRow.digest == digest_of(token),
                PersonKeyRow.revoked.is_(None),
                or_(PersonKeyRow.expires.is_(None), PersonKeyRow.expires > now),
                PersonRow.disabled.is_(None),
            )
        )
        with reading(self._engine) as session:
            row = session.execute(query).one_or_none()
        if row is None:
            return None
        if row.last_used != now.date():
            self._note_use(row.id, now.date())
        return Caller(kind=Kind.PERSON, name=row.name, role=Role(row.role), key=row.id)

    def _note_use(self, key: str, today: date) -> None:
        """To the day, so at most one write a key and day."""
        try:
            with writing(self._engine, Lock(f"person-key/{key}"), relaxed=True) as session:
                session.execute(update(PersonKeyRow).where(PersonKeyRow.id == key).values(last_used=today))
        except OperationalError as error:  # a full disk must not keep anybody from reading why
            log.warning("the day that key %s was used on could not be noted: %s", key, error.orig)

    def _refusal(self, caller: Caller, permission: Permission, what: str) -> Forbidden:
        if caller.role is None:
            return Forbidden(f"{what} is for people; this is a device's token")
        least = least_role(permission)
        with writing(self._engine, Lock("access")) as session:
            audit.append(
                session,
                self._clock.now(),
                actor=caller.actor,
                action="access.refused",
                subject=what,
                detail={"role": caller.role, "needs": least, "key": caller.key},
            )
        return Forbidden(f"{what} needs the role {least} or higher, and {caller.name} is {caller.role}: ask an admin")
