"""People: who there is, their roles, passwords and keys. Every change is in the audit log, in the same transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from model_server.access.keys import KeyKind, NewKey, add_key
from model_server.access.passwords import Passwords
from model_server.access.roles import Role
from model_server.access.tables import PersonKeyRow, PersonRow
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import Lock, reading, writing
from model_server.errors import MalformedRequest, PersonConflict, UnknownKey, UnknownPerson

__all__ = ["PEOPLE", "KeyInfo", "People", "PersonInfo", "check_name", "first_admin", "is_name", "recover"]

PEOPLE = Lock("people")
MAX_EXPIRES_DAYS = 3660
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")  # as the owners of signing keys are named
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonInfo:
    name: str
    role: Role
    has_password: bool
    created: datetime
    disabled: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """``state`` is ``valid``, ``expired`` or ``revoked``."""

    id: str
    kind: KeyKind
    name: str
    created: datetime
    expires: datetime | None
    last_used: date | None
    state: str


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Raises: MalformedRequest for a name outside ``a-z 0-9 -``."""
    if not is_name(name):
        raise MalformedRequest(f"{ascii(name)[:40]} is not a person's name: use 1 to 32 of a-z 0-9 - , as in 'alice'")
    return name


class People:
    """``actor`` is who asks, as the audit log names them."""

    def __init__(self, engine: Engine, clock: Clock, passwords: Passwords) -> None:
        self._engine = engine
        self._clock = clock
        self._passwords = passwords

    def everyone(self) -> list[PersonInfo]:
        with reading(self._engine) as session:
            return [_person(row) for row in session.execute(select(PersonRow).order_by(PersonRow.name)).scalars()]

    def add(self, name: str, role: Role, password: str | None, actor: str) -> PersonInfo:
        """Raises: MalformedRequest, PasswordRefused, PersonConflict if the name is taken, by somebody disabled too."""
        check_name(name)
        hashed = None if password is None else self._passwords.hash(password)
        now = self._clock.now()
        with writing(self._engine, PEOPLE) as session:
            if session.get(PersonRow, name) is not None:
                raise PersonConflict(f"there is a person {name} already; a name is never given twice")
            row = PersonRow(name=name, role=role.value, password=hashed, created=now, disabled=None)
            session.add(row)
            session.flush()
            _note(session, now, actor, "person.added", name, {"role": role, "password": hashed is not None})
            return _person(row)

    def set_role(self, name: str, role: Role, actor: str) -> PersonInfo:
        """A lower role also ends every key and session, which were given for the old one.

        Raises: UnknownPerson, PersonConflict for the last enabled admin.
        """
        with self._changing(name) as (session, row, now):
            before = Role(row.role)
            if role.rank < before.rank:
                _keep_an_admin(session, row)
                _end_keys(session, name, now)
            row.role = role.value
            _note(session, now, actor, "person.role_set", name, {"from": before, "to": role})
            return _person(row)

    def set_password(self, name: str, password: str, actor: str) -> PersonInfo:
        """Ends the person's sessions, and leaves their API keys. Raises: UnknownPerson, PasswordRefused."""
        hashed = self._passwords.hash(password)
        with self._changing(name) as (session, row, now):
            row.password = hashed
            _end_keys(session, name, now, KeyKind.SESSION)
            _note(session, now, actor, "person.password_set", name)
            return _person(row)

    def disable(self, name: str, actor: str) -> PersonInfo:
        """Ends every key and session. Raises: UnknownPerson, PersonConflict for the last enabled admin."""
        with self._changing(name) as (session, row, now):
            if row.disabled is None:
                _keep_an_admin(session, row)
                row.disabled = now
                _end_keys(session, name, now)
                _note(session, now, actor, "person.disabled", name)
            return _person(row)

    def enable(self, name: str, actor: str) -> PersonInfo:
        """The keys from before stay revoked. Raises: UnknownPerson."""
        with self._changing(name) as (session, row, now):
            if row.disabled is not None:
                row.disabled = None
                _note(session, now, actor, "person.enabled", name)
            return _person(row)

    def add_key(self, name: str, label: str, expires_days: int | None, actor: str) -> NewKey:
        """Raises: UnknownPerson, PersonConflict for somebody disabled, MalformedRequest."""
        if not _LABEL.fullmatch(label):
            raise MalformedRequest("a key's name has 1 to 64 printable characters")
        if expires_days is not None and not 1 <= expires_days <= MAX_EXPIRES_DAYS:
            raise MalformedRequest(f"a key expires after 1 to {MAX_EXPIRES_DAYS} days")
        lifetime = None if expires_days is None else timedelta(days=expires_days)
        with self._changing(name) as (session, row, now):
            if row.disabled is not None:
                raise PersonConflict(f"{name} is disabled: enable them first")
            made = add_key(session, name, KeyKind.API, label, now, lifetime)
            expires = None if made.expires is None else made.expires.isoformat()
            _note(session, now, actor, "person.key_added", name, {"key": made.id, "name": label, "expires": expires})
            return made

    def keys(self, name: str) -> list[KeyInfo]:
        """API keys and sessions, the newest first. Raises: UnknownPerson."""
        now = self._clock.now()
        with reading(self._engine) as session:
            _get(session, name)
            rows = session.execute(
                select(PersonKeyRow)
                .where(PersonKeyRow.person == name)
                .order_by(PersonKeyRow.created.desc(), PersonKeyRow.id)
            ).scalars()
            return [_key(row, now) for row in rows]

    def revoke_key(self, name: str, key: str, actor: str) -> KeyInfo:
        """One API key or session, by its id. Raises: UnknownPerson, UnknownKey."""
        with self._changing(name) as (session, _, now):
            row = session.get(PersonKeyRow, key) if key.isalnum() else None  # PostgreSQL takes no NUL
            if row is None or row.person != name:
                raise UnknownKey(f"{name} has no key {ascii(key)[:40]}; `people key list {name}` shows them")
            if row.revoked is None:
                row.revoked = now
                _note(session, now, actor, "person.key_revoked", name, {"key": key, "kind": row.kind})
            return _key(row, now)

    def revoke_all(self, name: str, actor: str) -> int:
        """Every API key and session; how many there were. Raises: UnknownPerson."""
        with self._changing(name) as (session, _, now):
            ended = _end_keys(session, name, now)
            _note(session, now, actor, "person.keys_revoked", name, {"keys": ended})
            return ended

    @contextmanager
    def _changing(self, name: str) -> Iterator[tuple[Session, PersonRow, datetime]]:
        now = self._clock.now()
        with writing(self._engine, PEOPLE) as session:
            yield session, _get(session, name), now


def first_admin(session: Session, name: str, now: datetime) -> NewKey:
    """The person and key that a new server begins with."""
    session.add(PersonRow(name=check_name(name), role=Role.ADMIN.value, password=None, created=now, disabled=None))
    session.flush()
    _note(session, now, "local:init", "person.added", name, {"role": Role.ADMIN, "password": False})
    made = add_key(session, name, KeyKind.API, "init", now)
    _note(session, now, "local:init", "person.key_added", name, {"key": made.id, "name": "init", "expires": None})
    return made


def recover(engine: Engine, name: str, now: datetime) -> NewKey:
    """A way back in, for whoever has the database: an enabled admin ``name`` with one new key, and no other."""
    check_name(name)
    with writing(engine, PEOPLE) as session:
        row = session.get(PersonRow, name)
        if row is None:
            row = PersonRow(name=name, role=Role.ADMIN.value, password=None, created=now, disabled=None)
            session.add(row)
            session.flush()
        ended = _end_keys(session, name, now)
        row.role, row.disabled = Role.ADMIN.value, None
        made = add_key(session, name, KeyKind.API, "recovered", now)
        _note(session, now, "local:recover", "person.recovered", name, {"key": made.id, "ended": ended})
        return made


def _get(session: Session, name: str) -> PersonRow:
    row = session.get(PersonRow, name) if is_name(name) else None
    if row is None:
        raise UnknownPerson(f"there is no person {ascii(name)[:40]}")
    return row


def _keep_an_admin(session: Session, row: PersonRow) -> None:
    others = select(func.count()).where(
        PersonRow.role == Role.ADMIN.value, PersonRow.disabled.is_(None), PersonRow.name != row.name
    )
    if row.role == Role.ADMIN and row.disabled is None and session.execute(others).scalar_one() == 0:
        raise PersonConflict(f"{row.name} is the last admin: make somebody else one first")


def _end_keys(session: Session, name: str, now: datetime, kind: KeyKind | None = None) -> int:
    query = select(PersonKeyRow).where(PersonKeyRow.person == name, PersonKeyRow.revoked.is_(None))
    if kind is not None:
        query = query.where(PersonKeyRow.kind == kind.value)
    rows = session.execute(query).scalars().all()
    for row in rows:
        row.revoked = now
    return len(rows)


def _note(
    session: Session,
    now: datetime,
    actor: str,
    action: str,
    name: str,
    detail: Mapping[str, object] | None = None,
) -> None:
    audit.append(session, now, actor=actor, action=action, subject=name, detail=detail)


def _person(row: PersonRow) -> PersonInfo:
    return PersonInfo(
        name=row.name,
        role=Role(row.role),
        has_password=row.password is not None,
        created=row.created,
        disabled=row.disabled,
    )


def _key(row: PersonKeyRow, now: datetime) -> KeyInfo:
    expired = row.expires is not None and row.expires <= now
    return KeyInfo(
        id=row.id,
        kind=KeyKind(row.kind),
        name=row.name,
        created=row.created,
        expires=row.expires,
        last_used=row.last_used,
        state="revoked" if row.revoked is not None else "expired" if expired else "valid",
    )
