"""A device as a client in any language would be: it enrols and signs by the words of docs/spec/enrolment.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.enrolment.protocol import SCHEME, claims, signing_input, statement, to_base64url


@cache
def plain_client() -> httpx.Client:
    """Without credentials; one for all, since loading certificates takes longer than a test."""
    return httpx.Client(timeout=30, verify=False)


@dataclass
class SigningDevice:
    id: str
    audience: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def enrolment(self, token: str) -> dict[str, Any]:
        """The body of ``POST /v1/devices``."""
        proof = self.key.sign(statement(token, self.id, self.public_key))
        return {
            "token": token,
            "device": self.id,
            "public_key": to_base64url(self.public_key),
            "proof": to_base64url(proof),
        }

    def enrol(self, url: str, secret: str, **changes: Any) -> httpx.Response:
        return plain_client().post(f"{url}/v1/devices", json={**self.enrolment(secret), **changes})

    def signed(self, body: bytes, *, now: datetime | None = None, **changes: Any) -> dict[str, str]:
        """The header for ``body``; ``changes`` are made to the claims before they are signed."""
        said = {**claims(self.id, self.audience, now or datetime.now(UTC), body), **changes}
        text = signing_input({name: value for name, value in said.items() if value is not None})
        return {"Authorization": f"{SCHEME} {text}.{to_base64url(self.key.sign(text.encode()))}"}

    def post(self, url: str, body: bytes, **changes: Any) -> httpx.Response:
        return plain_client().post(url, content=body, headers=self.signed(body, **changes))
