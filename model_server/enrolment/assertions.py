"""Verifying what a device signs: one short JSON Web Token (RFC 7519) for one request."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.types import Options

from edge_runtime.enrolment.protocol import LIFETIME_S, MAX_ASSERTION, TYPE
from model_server.errors import DeviceNotEnrolled, Unauthorized

__all__ = ["claimed_body", "verify"]

LEEWAY_S = 60  # by which a device's clock may differ
_DEVICE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_TIME = 2**53
_UNVERIFIED: Options = {"verify_signature": False}
# Times and audience are judged below, by the clock and the repository that were passed in.
_OPTIONS: Options = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
}


def verify(
    assertion: str, key_of: Callable[[str], bytes | None], ours: Callable[[str], bool], now: datetime
) -> tuple[str, str]:
    """The device that signed, and the sha256 of the body that it sends.

    ``key_of`` gives the public key of a device, None where there is none; ``ours`` says whether an audience is this
    repository's. Raises: DeviceNotEnrolled, Unauthorized, and what ``key_of`` does.
    """
    device = _claims(assertion, None).get("sub")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise Unauthorized("the assertion names no device")
    public = key_of(device)
    if public is None:
        raise DeviceNotEnrolled("this device is not enrolled here, or was reset: it must enrol first")
    found = _claims(assertion, Ed25519PublicKey.from_public_bytes(public))
    if found.get("sub") != device or found.get("iss") != device:
        raise Unauthorized("iss and sub of an assertion are both the device's id")
    audience = found.get("aud")
    if not isinstance(audience, str) or not ours(audience):
        raise Unauthorized("the assertion is for another repository: is the device's root metadata this server's?")
    _check_times(found.get("iat"), found.get("exp"), now.timestamp())
    body = found.get("body_sha256")
    if not isinstance(body, str) or not _SHA256.fullmatch(body):
        raise Unauthorized("the assertion does not say what body it is for")
    return device, body


def claimed_body(assertion: str) -> str | None:
    """The sha256 that an assertion states, before anything of it is verified; None where it states none."""
    try:
        body = _claims(assertion, None).get("body_sha256")
    except Unauthorized:
        return None
    return body if isinstance(body, str) else None


def _claims(assertion: str, key: Ed25519PublicKey | None) -> dict[str, Any]:
    if len(assertion) > MAX_ASSERTION:
        raise Unauthorized("the assertion is too long to be one")
    try:
        # One algorithm: with more, a public key could be passed off as a shared secret.
        whole = jwt.decode_complete(
            assertion, key or "", algorithms=["EdDSA"], options=_UNVERIFIED if key is None else _OPTIONS
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise Unauthorized("the assertion is damaged, or not signed by the key that this device enrolled") from error
    if whole["header"].get("typ") != TYPE:
        raise Unauthorized(f"the assertion's type must be {TYPE}")
    claims: dict[str, Any] = whole["payload"]
    return claims


def _check_times(issued: object, expires: object, now: float) -> None:
    if not (type(issued) is int and type(expires) is int and 0 <= issued <= expires <= _MAX_TIME):
        raise Unauthorized("iat and exp of an assertion are whole seconds since 1970")
    if expires - issued > LIFETIME_S:
        raise Unauthorized(f"an assertion lives {LIFETIME_S} seconds at most")
    if not issued - LEEWAY_S <= now <= expires + LEEWAY_S:
        raise Unauthorized("the assertion is not valid now: correct its time by the Date of this answer")
