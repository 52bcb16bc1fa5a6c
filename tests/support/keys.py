"""Keys for tests of signing."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import SSlibKey

from model_server.signing.roles import PERSON_FIELD


def new_private() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def same_key(key: SSlibKey, keyid: str, person: str) -> SSlibKey:
    """The same public key under another id, said to be another person's."""
    return SSlibKey(keyid, key.keytype, key.scheme, dict(key.keyval), {PERSON_FIELD: person})
