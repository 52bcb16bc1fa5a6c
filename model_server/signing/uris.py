"""Private keys that live elsewhere: on a token (PKCS#11), in a key service. Any signer of securesystemslib, by its URI.

Nothing here keeps, logs or prints a PIN.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from urllib.parse import parse_qsl, urlparse

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from securesystemslib.exceptions import KeyMismatchError, UnsupportedLibraryError, UnverifiedSignatureError
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    AWSSigner,
    AzureSigner,
    GCPSigner,
    HSMSigner,
    Key,
    Signature,
    Signer,
    SSlibKey,
    VaultSigner,
)

from model_server.errors import KeyRejected, KeyWithoutRole, SignerFailed
from model_server.signing.algorithms import check_algorithm

__all__ = ["KeyUri", "find_public", "open_uri"]

# What has to be installed for a scheme. Ours names only what our tests run.
_EXTRAS = {
    "hsm": "edgeship[hsm]",
    "gcpkms": "securesystemslib[gcpkms]",
    "awskms": "securesystemslib[awskms]",
    "azurekms": "securesystemslib[azurekms]",
    "hv": "securesystemslib[vault]",
    "tkey": "securesystemslib[tkey]",
}
# Signed once to see which key a URI leads to. It is no metadata, and can never be taken for any.
_PROBE = b"Edgeship asks: which key is this? This text is no TUF metadata and grants nothing."
_PIN_ERRORS = {
    "PinIncorrect": "the PIN is wrong; after a few wrong ones the token locks itself",
    "PinInvalid": "the PIN is wrong; after a few wrong ones the token locks itself",
    "PinLenRange": "the PIN is wrong: it is too short or too long for this token",
    "PinLocked": "the token has locked itself after wrong PINs: its security officer must set a new one",
    "PinExpired": "the PIN has expired: set a new one with the token's own tool",
}
_one_at_a_time = threading.Lock()  # a token has one login for a whole process


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUri:
    """``secret`` is asked, by name ("pin"), for what the signer needs, when it needs it, and may be asked again."""

    uri: str
    secret: Callable[[str], str] = field(repr=False)

    def __str__(self) -> str:
        return self.uri


def open_uri(place: KeyUri, keys: Iterable[Key]) -> Signer:
    """The signer for that one of ``keys``, out of signed metadata, whose private half is at ``place``. It has signed
    once, so it is known to answer.

    Raises: KeyRejected if it cannot be reached or opened, KeyWithoutRole if its key is not one of ``keys``.
    """
    _check_scheme(place.uri)
    candidates = sorted((key for key in keys if isinstance(key, SSlibKey)), key=lambda key: (key.keytype, key.scheme))
    asked: list[str] = []
    failed = ""
    for _, group in groupby(candidates, key=lambda key: (key.keytype, key.scheme)):
        alike = list(group)
        try:
            signature = _probe(place, alike, asked)
        except UnsupportedLibraryError as error:
            raise _rejected(place, error, asked) from error
        # The libraries behind a signer raise what they like, and securesystemslib says to catch it all.
        except Exception as error:
            if asked:  # another try with a PIN that may be wrong would bring the token nearer to its lock
                raise _rejected(place, error, asked) from error
            failed = failed or _words(error, asked)
            continue
        for key in alike:
            if signature is not None and _verifies(key, signature, _PROBE):
                return _Elsewhere(place, Signer.from_priv_key_uri(place.uri, key, place.secret))
    reason = f" ({failed})" if failed else ""
    raise KeyWithoutRole(
        f"{place} is not a key that the signed metadata allows here{reason}: use the key that you handed over for this "
        "role on this server"
    )


def find_public(place: KeyUri) -> tuple[KeyUri, PublicKeyTypes, str]:
    """Ask the token or service for the public half: the URI to use from now on, which may say more than the one given,
    the key, and its scheme.

    Raises: KeyRejected, also for a scheme whose signer cannot tell.
    """
    _check_scheme(place.uri)
    asked: list[str] = []
    try:
        with _one_at_a_time:
            uri, key = _import(place, asked)
    except KeyRejected:
        raise
    except Exception as error:
        raise _rejected(place, error, asked) from error
    return KeyUri(uri=uri, secret=place.secret), check_algorithm(key), key.scheme


def _import(place: KeyUri, asked: list[str]) -> tuple[str, Key]:
    parts = urlparse(place.uri)
    rest = place.uri.partition(":")[2]
    match parts.scheme:
        case HSMSigner.SCHEME:
            label = dict(parse_qsl(parts.query)).get("label")
            return HSMSigner.import_(int(parts.path) if parts.path else None, label, _noting(place, asked))
        case GCPSigner.SCHEME:
            return GCPSigner.import_(rest)
        case AWSSigner.SCHEME:
            return AWSSigner.import_(rest)
        case AzureSigner.SCHEME:
            return AzureSigner.import_(parts.netloc.partition(".")[0], parts.path.split("/")[2])
        case VaultSigner.SCHEME:
            return VaultSigner.import_(rest.partition("/")[0])
    raise KeyRejected(f"{place}: a signer of this kind does not tell its public key: give it in PEM with --public")


class _Elsewhere(Signer):
    """Signs by way of another signer, and lets nothing out that does not verify."""

    def __init__(self, place: KeyUri, inner: Signer) -> None:
        self._place = place
        self._inner = inner

    @property
    def public_key(self) -> Key:
        return self._inner.public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Callable[[str], str] | None = None
    ) -> Signer:
        return open_uri(KeyUri(uri=priv_key_uri, secret=secrets_handler or _no_secret), [public_key])

    def sign(self, payload: bytes) -> Signature:
        """Raises: SignerFailed."""
        try:
            with _one_at_a_time:
                signature = self._inner.sign(payload)
        except Exception as error:
            raise SignerFailed(f"{self._place} did not sign: {_words(error, [])}") from error
        if not _verifies(self.public_key, signature, payload):
            raise SignerFailed(f"{self._place} signed with another key than {self.public_key.keyid[:12]}")
        return signature


def _probe(place: KeyUri, alike: Iterable[SSlibKey], asked: list[str]) -> Signature | None:
    """A signature by ``place``. Most signers do not care which of the keys they are given; some want the one."""
    for key in alike:
        try:
            with _one_at_a_time:
                return Signer.from_priv_key_uri(place.uri, key, _noting(place, asked)).sign(_PROBE)
        except KeyMismatchError:
            continue
    return None


def _noting(place: KeyUri, asked: list[str]) -> Callable[[str], str]:
    """``place.secret``, which notes what it gave, so that no error repeats it."""

    def secret(name: str) -> str:
        value = place.secret(name)
        asked.append(value)
        return value

    return secret


def _no_secret(name: str) -> str:
    raise KeyRejected(f"nothing was given for the {name}")


def _verifies(key: Key, signature: Signature, payload: bytes) -> bool:
    try:
        key.verify_signature(Signature(key.keyid, signature.signature, signature.unrecognized_fields), payload)
    except UnverifiedSignatureError:
        return False
    return True


def _check_scheme(uri: str) -> None:
    scheme = uri.partition(":")[0]
    if scheme not in SIGNER_FOR_URI_SCHEME:
        known = ", ".join(sorted(f"{name}:" for name in SIGNER_FOR_URI_SCHEME))
        raise KeyRejected(f"{uri}: no signer of the scheme {scheme!r} is known, but {known}. Is it the path of a file?")


def _rejected(place: KeyUri, error: Exception, asked: list[str]) -> KeyRejected:
    if isinstance(error, KeyRejected):
        return error
    if isinstance(error, UnsupportedLibraryError):
        extra = _EXTRAS.get(place.uri.partition(":")[0])
        return KeyRejected(f"{place}: {error}" + (f": pip install '{extra}'" if extra else ""))
    return KeyRejected(f"{place} cannot be used: {_words(error, asked)}")


def _words(error: Exception, asked: list[str]) -> str:
    known = _PIN_ERRORS.get(type(error).__name__)
    if known is not None:
        return known
    text = str(error).strip().split("\n", 1)[0]
    for secret in asked:
        text = text.replace(secret, "…") if secret else text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
