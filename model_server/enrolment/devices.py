"""Enrolled devices: letting one in, and what people do about it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Engine, select

from edge_runtime.enrolment.protocol import statement, token_digest
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import Lock, reading, writing
from model_server.enrolment.rules import Token, used_once_more
from model_server.enrolment.tables import EnrolledDeviceRow, EnrolmentTokenRow
from model_server.enrolment.tokens import token_lock
from model_server.errors import DeviceRevoked, DeviceTaken, ProofRejected, TokenRefused, UnknownDevice

__all__ = ["Devices", "Request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A device that asks to be let in: the token it was given, its id, its Ed25519 public key (32 bytes), and the
    signature of `edge_runtime.enrolment.protocol.statement` by that key."""

    token: str
    device: str
    public_key: bytes
    proof: bytes


class Devices:
    """Nothing here is remembered between calls, so that what people do counts from the next request on."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def enrol(self, request: Request) -> bool:
        """Let a device in; False if it was in already with this very key, which costs no use of the token, so that one
        whose answer was lost may ask again.

        Raises: ProofRejected; TokenRefused, EnrolmentBusy; DeviceTaken (another key has this id), DeviceRevoked.
        """
        _check_proof(request)
        digest, now = token_digest(request.token), self._clock.now()
        with writing(self._engine, token_lock(digest[:12]), _device_lock(request.device)) as session:
            row = session.get(EnrolledDeviceRow, request.device)
            if row is not None and row.public_key == request.public_key:
                if row.revoked is not None:
                    raise DeviceRevoked(f"device {request.device} is revoked")
                return False
            # The token comes first: without one, nobody learns which devices there are.
            token = session.execute(
                select(EnrolmentTokenRow).where(EnrolmentTokenRow.digest == digest)
            ).scalar_one_or_none()
            if token is None:
                raise TokenRefused("this enrolment token is not known here")
            after = used_once_more(_token(token), now)
            if row is not None and row.revoked is not None:
                raise DeviceRevoked(f"device {request.device} is revoked")
            if row is not None and row.public_key is not None:
                raise DeviceTaken(
                    f"device {request.device} is enrolled with another key: `edgeship-server devices reset "
                    f"{request.device}` lets it enrol anew"
                )
            for name, value in asdict(after).items():
                setattr(token, name, value)
            if row is None:
                row = EnrolledDeviceRow(device=request.device)
                session.add(row)
            row.public_key, row.token, row.group, row.enrolled = request.public_key, token.id, token.group, now
        return True

    def key_of(self, device: str) -> bytes | None:
        """Its public key; None for a device that is not enrolled. Raises `DeviceRevoked`."""
        with reading(self._engine) as session:
            row = session.get(EnrolledDeviceRow, device)
            if row is not None and row.revoked is not None:
                raise DeviceRevoked(f"device {device} is revoked")
            return None if row is None else row.public_key

    def has(self, device: str) -> bool:
        """Whether it ever enrolled: then it speaks by its own key only, revoked or reset ones included."""
        with reading(self._engine) as session:
            return session.get(EnrolledDeviceRow, device) is not None

    def list(self, *, after: str = "", limit: int = 100, group: str | None = None) -> list[dict[str, object]]:
        """A page of devices, by id."""
        query = select(EnrolledDeviceRow).where(EnrolledDeviceRow.device > after).order_by(EnrolledDeviceRow.device)
        if group is not None:
            query = query.where(EnrolledDeviceRow.group == group)
        with reading(self._engine) as session:
            return [_shown(row) for row in session.execute(query.limit(limit)).scalars()]

    def revoke(self, device: str, actor: str) -> dict[str, object]:
        """Nothing that it signs counts from now on. Raises `UnknownDevice`."""

        def change(row: EnrolledDeviceRow, now: datetime) -> None:
            row.revoked = row.revoked or now

        return self._change(device, actor, "devices.revoked", change)

    def reset(self, device: str, actor: str) -> dict[str, object]:
        """Forget its key: whoever brings a token may enrol this id again. Raises `UnknownDevice`."""

        def change(row: EnrolledDeviceRow, now: datetime) -> None:
            row.public_key = row.revoked = None

        return self._change(device, actor, "devices.reset", change)

    def _change(
        self, device: str, actor: str, action: str, change: Callable[[EnrolledDeviceRow, datetime], None]
    ) -> dict[str, object]:
        now = self._clock.now()
        with writing(self._engine, _device_lock(device)) as session:
            row = session.get(EnrolledDeviceRow, device)
            if row is None:
                raise UnknownDevice(f"no device {device!r} has enrolled")
            change(row, now)
            audit.append(session, now, actor=actor, action=action, subject=device)
            return _shown(row)


def _check_proof(request: Request) -> None:
    signed = statement(request.token, request.device, request.public_key)
    try:
        Ed25519PublicKey.from_public_bytes(request.public_key).verify(request.proof, signed)
    except (InvalidSignature, ValueError) as error:
        raise ProofRejected(
            "the proof is no signature by this key of this token, device and key: see docs/spec/enrolment.md"
        ) from error


def _token(row: EnrolmentTokenRow) -> Token:
    return Token(
        uses=row.uses,
        used=row.used,
        per_hour=row.per_hour,
        hour=row.hour,
        hour_used=row.hour_used,
        expires=row.expires,
        revoked=row.revoked,
    )


def _device_lock(device: str) -> Lock:
    return Lock(f"enrolled device {device}")


def _shown(row: EnrolledDeviceRow) -> dict[str, object]:
    state = "revoked" if row.revoked is not None else "reset" if row.public_key is None else "enrolled"
    return {
        "device": row.device,
        "state": state,
        "group": row.group,
        "token": row.token,
        "enrolled": row.enrolled.isoformat(),
        "revoked": None if row.revoked is None else row.revoked.isoformat(),
    }
