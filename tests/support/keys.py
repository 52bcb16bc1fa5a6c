"""Keys for tests of signing."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from securesystemslib.signer import CryptoSigner, SSlibKey

from model_server.signing.roles import PERSON_FIELD


def new_private() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def same_key(key: SSlibKey, keyid: str, person: str) -> SSlibKey:
    """The same public key under another id, said to be another person's."""
    return SSlibKey(keyid, key.keytype, key.scheme, dict(key.keyval), {PERSON_FIELD: person})


# Other words for a public key, and a key of the kind that can be put in them.
SPELLINGS: Mapping[str, Callable[[], CryptoSigner]] = {
    "hex with spaces": CryptoSigner.generate_ed25519,
    "PEM with a comment": CryptoSigner.generate_ecdsa,
    "PEM in short lines": CryptoSigner.generate_ecdsa,
    "PEM of a compressed point": CryptoSigner.generate_ecdsa,
    "PEM of PKCS#1": partial(CryptoSigner.generate_rsa, size=2048),
}


def respelt(public: str, spelling: str) -> str:
    """The same public key in other words, which python-tuf takes for the same too."""
    if spelling == "hex with spaces":
        return " ".join(public[i : i + 2] for i in range(0, 64, 2))
    if spelling == "PEM of PKCS#1":
        return load_pem_public_key(public.encode()).public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    body = "".join(public.splitlines()[1:-1])
    pem = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
    if spelling == "PEM with a comment":
        return "another laptop\n" + public
    if spelling == "PEM in short lines":
        return pem.format("\n".join(body[i : i + 32] for i in range(0, len(body), 32)))
    der = bytearray(b64decode(body))  # of P-256: the point takes 33 bytes compressed, 65 without, and is the end
    der[1] -= 32
    der[24] -= 32
    return pem.format(b64encode(bytes(der[:26]) + bytes([2 + der[-1] % 2]) + der[27:59]).decode())
