"""A person's own keys, made on their own machine, and the file of public halves that they hand over."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import Error as KeyFormatError
from securesystemslib.signer import Key, SSlibKey

from model_server.errors import KeyRejected, SettingsError
from model_server.files import write_atomic
from model_server.signing.algorithms import check_algorithm, key_of, read_public_pem
from model_server.signing.keys import personal_signer, save_key
from model_server.signing.kinds import KINDS
from model_server.signing.roles import PERSON_FIELD, person_of
from model_server.signing.uris import KeyUri, find_public, open_uri

__all__ = [
    "MIN_PASSPHRASE",
    "check_passphrase",
    "check_person",
    "make_personal_keys",
    "own_key",
    "read_public_keys",
]

MIN_PASSPHRASE = 12  # characters; a stolen key file is tried offline, as fast as the thief can
FORMAT = 1
MAX_BYTES = 65_536
_PERSON = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def check_person(person: str) -> str:
    """Raises: SettingsError for a name outside ``a-z 0-9 -``."""
    if not _PERSON.fullmatch(person):
        raise SettingsError(f"{person!r} is not a person's name here: use 1 to 32 of a-z 0-9 - , as in 'alice'")
    return person


def check_passphrase(passphrase: bytes) -> None:
    """Raises: KeyRejected if it is shorter than `MIN_PASSPHRASE`."""
    if len(passphrase.decode(errors="replace")) < MIN_PASSPHRASE:
        raise KeyRejected(f"the passphrase of people's keys must have at least {MIN_PASSPHRASE} characters")


def make_personal_keys(
    folder: Path,
    person: str,
    kinds: Sequence[str],
    passphrase: bytes,
    elsewhere: Mapping[str, SSlibKey] | None = None,
) -> Path:
    """Make ``<kind>-<person>.pem`` for each kind of role, and ``<person>.public.json``, which is not secret; it also
    holds the keys that live ``elsewhere``, by kind. The passphrase is for the files, if there are any.

    Raises: KeyRejected if a key file exists or the passphrase is too short; SettingsError for a name.
    """
    check_person(person)
    if kinds:
        check_passphrase(passphrase)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    public: dict[str, object] = {kind: {"keyid": key.keyid, **key.to_dict()} for kind, key in (elsewhere or {}).items()}
    for kind in kinds:
        private = Ed25519PrivateKey.generate()
        save_key(folder / f"{kind}-{person}.pem", private, passphrase)
        key = personal_signer(private, person).public_key
        public[kind] = {"keyid": key.keyid, **key.to_dict()}
    path = folder / f"{person}.public.json"
    write_atomic(path, json.dumps({"format": FORMAT, "person": person, "keys": public}, indent=2).encode() + b"\n")
    return path


def own_key(place: KeyUri, pem: Path | None, field: str, owner: str) -> tuple[KeyUri, SSlibKey]:
    """The public half, marked with its owner, of a key that lives elsewhere, and the URI to sign with. It has signed
    once: nobody hands over a key that does not.

    ``pem`` is a file of the public half, for signers that do not tell it. Raises: KeyRejected.
    """
    if pem is None:
        place, public, scheme = find_public(place)
        key = key_of(public, scheme, field, owner)
    else:
        key = key_of(read_public_pem(_read(pem), str(pem)), None, field, owner)
    open_uri(place, [key])
    return place, key


def read_public_keys(path: Path) -> Mapping[str, Key]:
    """The public keys of one person, by kind of role. Raises: KeyRejected."""
    data = _read(path)
    try:
        document = json.loads(data)
        person = check_person(document["person"])
        if document["format"] != FORMAT or not document["keys"]:
            raise ValueError
        keys = {kind: _key(person, entry) for kind, entry in document["keys"].items() if kind in KINDS}
        if keys.keys() != document["keys"].keys():
            raise ValueError
    except (
        *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
        *(KeyFormatError, KeyRejected, SettingsError),
    ) as error:
        reason = f" ({error})" if isinstance(error, KeyRejected) else ""
        raise KeyRejected(
            f"{path} is no file of public keys{reason}: it is what `edgeship-server keys new` writes as "
            "<person>.public.json"
        ) from error
    return keys


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise KeyRejected(f"{path} cannot be read: {error.strerror}") from error


def _key(person: str, entry: Mapping[str, object]) -> Key:
    """The key under the id that its content gives: an id of the sender's choice could stand for two keys."""
    fields = dict(entry)
    key = Key.from_dict(str(fields.pop("keyid")), fields)
    if not isinstance(key, SSlibKey) or person_of(key) != person:
        raise ValueError(person)
    if key != key_of(check_algorithm(key), key.scheme, PERSON_FIELD, person):
        raise ValueError(person)
    return key
