"""Which kinds of keys may sign here: what TUF clients verify, and what tokens and key services offer. Pure.

Devices verify Ed25519 with the base install; ECDSA and RSA need `cryptography`, which the extra `device` brings.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import Key, SSlibKey

from model_server.errors import KeyRejected

__all__ = ["check_algorithm", "key_of", "read_public_pem"]

MIN_RSA_BITS = 2048
_CURVES = {"ecdsa-sha2-nistp256": SECP256R1, "ecdsa-sha2-nistp384": SECP384R1}
_RSA_SCHEMES = ("rsassa-pss-sha256", "rsassa-pss-sha384", "rsassa-pss-sha512")  # never PKCS#1 v1.5


def check_algorithm(key: Key) -> PublicKeyTypes:
    """The public key itself. Raises: KeyRejected unless it is Ed25519, ECDSA on P-256 or P-384, or RSA-PSS of at least
    2048 bits, and is what its key type and scheme say."""
    value = str(key.keyval.get("public", ""))
    try:
        loaded = (
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(value))
            if key.keytype == "ed25519"
            else load_pem_public_key(value.encode())
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRejected(f"key {key.keyid[:12]} holds no public key that can be read") from error
    match key.keytype, loaded:
        case "ed25519", Ed25519PublicKey():
            fits = key.scheme == "ed25519"
        case "ecdsa", EllipticCurvePublicKey():
            fits = isinstance(loaded.curve, _CURVES.get(key.scheme, ()))
        case "rsa", RSAPublicKey():
            fits = key.scheme in _RSA_SCHEMES and loaded.key_size >= MIN_RSA_BITS
        case _:
            fits = False
    if not fits:
        raise KeyRejected(
            f"key {key.keyid[:12]} ({key.keytype}, {key.scheme}) is of no kind that may sign here: Ed25519, ECDSA on "
            f"P-256 or P-384, or RSA-PSS of at least {MIN_RSA_BITS} bits"
        )
    return loaded


def key_of(public: PublicKeyTypes, scheme: str | None, field: str, value: str) -> SSlibKey:
    """The key in its one spelling, under the id that its content gives, marked with whose it is.

    Raises: KeyRejected for a kind of key that may not sign here.
    """
    try:
        key = SSlibKey.from_crypto(public, scheme=scheme)
    except ValueError as error:
        raise KeyRejected(f"this kind of key may not sign here: {error}") from error
    check_algorithm(key)
    return SSlibKey(key.keyid, key.keytype, key.scheme, dict(key.keyval), {field: value})


def read_public_pem(pem: bytes, name: str) -> PublicKeyTypes:
    """Raises: KeyRejected."""
    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRejected(f"{name} is no public key in PEM") from error
