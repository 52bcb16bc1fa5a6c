"""Private keys: files, PKCS#8 PEM encrypted with a passphrase, or URIs of keys that live elsewhere. New key files are
Ed25519; others are opened too. Nothing here logs or prints a key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signature, Signer, SSlibKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata

from edge_runtime.update.rules import key_identity
from model_server.errors import KeyRejected, KeyWithoutRole, SignerFailed
from model_server.signing.algorithms import key_of
from model_server.signing.repository import S
from model_server.signing.roles import ONLINE_FIELD, PERSON_FIELD, public_value
from model_server.signing.uris import KeyUri, open_uri

__all__ = ["online_signer", "open_signer", "personal_signer", "read_passphrase", "save_key", "sign_metadata"]

MAX_KEY_BYTES = 16_384


def personal_signer(private: Ed25519PrivateKey, person: str) -> CryptoSigner:
    """A signer whose public half is marked with the person whose key it is."""
    return _marked(private, PERSON_FIELD, person)


def online_signer(private: Ed25519PrivateKey, use: str) -> CryptoSigner:
    """A signer that the server holds, its public half marked with what it is for."""
    return _marked(private, ONLINE_FIELD, use)


def save_key(path: Path, private: Ed25519PrivateKey, passphrase: bytes) -> None:
    """Write the private key to a new file that only its owner may read; an existing file is never overwritten.

    Raises: KeyRejected if the file exists or the passphrase is empty.
    """
    if not passphrase:
        raise KeyRejected(f"{path}: a key file needs a passphrase")
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyRejected(f"{path} exists; a key file is never overwritten") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def open_signer(place: Path | KeyUri, passphrase: bytes, keys: Iterable[Key]) -> Signer:
    """Open a key file with its passphrase, or what a URI leads to; its public half must be one of ``keys``, out of
    signed metadata, which also gives its id.

    Raises: KeyRejected if it cannot be read or reached, or the passphrase is wrong; KeyWithoutRole if it is not one of
    ``keys``.
    """
    if isinstance(place, KeyUri):
        return open_uri(place, keys)
    private = _read_private(place, passphrase)
    try:
        public = key_identity(SSlibKey.from_crypto(private.public_key()).keyval["public"])
        for key in keys:
            if isinstance(key, SSlibKey) and public_value(key) == public:
                return CryptoSigner(private, key)
    except ValueError as error:
        raise KeyRejected(f"{place} holds a kind of key that does not sign here: {error}") from error
    raise KeyWithoutRole(
        f"{place} is not a key that the signed metadata allows here: use the key file that you were given for this "
        "role on this server"
    )


def sign_metadata(metadata: Metadata[S], signer: Signer, *, append: bool = False) -> Signature:
    """Add a signature, or put it in the place of all others. Raises: SignerFailed."""
    try:
        return metadata.sign(signer, append=append)
    except UnsignedMetadataError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, SignerFailed) else SignerFailed(str(error)) from error


def read_passphrase(path: Path) -> bytes:
    """The first line of a passphrase file, without its end of line.

    Raises: KeyRejected if it cannot be read or is empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KeyRejected(f"the passphrase file {path} cannot be read: {error.strerror}") from error
    passphrase = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not passphrase:
        raise KeyRejected(f"the passphrase file {path} starts with an empty line")
    return passphrase


def _read_private(path: Path, passphrase: bytes) -> PrivateKeyTypes:
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyRejected(f"the key file {path} cannot be read: {error.strerror}") from error
    if len(pem) > MAX_KEY_BYTES:
        raise KeyRejected(f"{path} is too large for a key file")
    try:
        return load_pem_private_key(pem, passphrase)
    except TypeError as error:
        # cryptography raises it for a passphrase without encryption, and for encryption without a passphrase
        raise KeyRejected(f"{path}: {error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRejected(f"{path} cannot be opened: wrong passphrase, or not a PKCS#8 PEM key") from error


def _marked(private: Ed25519PrivateKey, field: str, value: str) -> CryptoSigner:
    return CryptoSigner(private, key_of(private.public_key(), None, field, value))
