"""What a device and a server sign and check, as bytes. Standard library only; docs/spec/enrolment.md is normative."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime

__all__ = [
    "LIFETIME_S",
    "MAX_ASSERTION",
    "SCHEME",
    "TYPE",
    "audience",
    "claims",
    "from_base64url",
    "is_assertion",
    "signing_input",
    "statement",
    "to_base64url",
    "token_digest",
]

SCHEME = "Edgeship-Device"  # of the Authorization header
TYPE = "edgeship-device+jwt"  # of the assertion's header
LIFETIME_S = 300  # between an assertion's iat and exp, at most
MAX_ASSERTION = 2048  # characters


def token_digest(token: str) -> str:
    """The sha256 of an enrolment token, in lower-case hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def statement(token: str, device: str, public_key: bytes) -> bytes:
    """What a device signs to enrol ``public_key`` (32 bytes). It holds spaces and line ends, which the signing input of
    an assertion never does, so that neither signature can pass for the other."""
    return f"edgeship enrolment 1\n{token_digest(token)}\n{device}\n{to_base64url(public_key)}\n".encode()


def audience(root: bytes) -> str:
    """The name of the repository that the root metadata ``root``, of any version, belongs to."""
    return f"urn:edgeship:root:{hashlib.sha256(root).hexdigest()}"


def claims(device: str, of: str, now: datetime, body: bytes) -> dict[str, str | int]:
    """What an assertion says: that ``device`` sends ``body`` to the repository ``of`` at about ``now``."""
    issued = int(now.timestamp())
    return {
        "iss": device,
        "sub": device,
        "aud": of,
        "iat": issued,
        "exp": issued + LIFETIME_S,
        "body_sha256": hashlib.sha256(body).hexdigest(),
    }


def signing_input(body: dict[str, str | int]) -> str:
    """The two parts of a compact JWS (RFC 7515) that are signed."""
    head = {"alg": "EdDSA", "typ": TYPE}
    return ".".join(to_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (head, body))


def is_assertion(authorization: str | None) -> bool:
    """Whether an Authorization header holds an assertion, good or bad."""
    return (authorization or "").partition(" ")[0].lower() == SCHEME.lower()


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Raises ValueError for anything but the one spelling of some bytes."""
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if to_base64url(data) != text:
        raise ValueError("not base64url as RFC 7515 writes it")
    return data
