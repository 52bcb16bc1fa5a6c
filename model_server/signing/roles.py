"""The roles of the repository: names, paths, expiries, and who has signed. Pure.

TUF's words are used as in the specification: https://theupdateframework.github.io/specification/latest/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Key, Signature
from tuf.api.metadata import DelegatedRole, Metadata, Root, Targets

from edge_runtime.bundle.names import check_model
from edge_runtime.update.rules import ROLE_FIELD, key_identity
from model_server.errors import KeyRejected
from model_server.signing.algorithms import check_algorithm

__all__ = [
    "ONLINE_FIELD",
    "PERSON_FIELD",
    "ROOT_PEOPLE",
    "THRESHOLD",
    "Expiry",
    "check_keys",
    "delegated_models",
    "first_role",
    "person_of",
    "releases_delegation",
    "releases_role",
    "rollouts_delegation",
    "rollouts_role",
    "signed_by",
]

# The owner of a key stands beside it in signed metadata, so that nobody can rename a key's owner without a signature.
PERSON_FIELD = "x-edgeship-person"
ONLINE_FIELD = "x-edgeship-online"
ROOT_PEOPLE = 3  # hold root keys at least: root is 2 of 3, and one lost key must not end the repository
THRESHOLD = 2  # people, for root, targets and every releases role
_RELEASES = "releases-"
_ROLLOUTS = "rollouts-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """How long each role's metadata stays valid from the moment it is made."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=90)
    releases: timedelta = timedelta(days=90)
    rollouts: timedelta = timedelta(days=7)
    snapshot: timedelta = timedelta(days=7)
    timestamp: timedelta = timedelta(days=1)


def releases_role(model: str) -> str:
    """The role that lists a model's releases: offline, two people."""
    return _RELEASES + check_model(model)


def rollouts_role(model: str) -> str:
    """The role that lists a model's rollout plans: online."""
    return _ROLLOUTS + check_model(model)


def releases_delegation(model: str, keyids: Iterable[str], threshold: int = THRESHOLD) -> DelegatedRole:
    # TUF's `*` never crosses a `/`: the first pattern is for policy.json, the second for the files of releases.
    paths = [f"models/{model}/*", f"models/{model}/*/*"]
    return DelegatedRole(releases_role(model), list(keyids), threshold, False, paths=paths)


def rollouts_delegation(model: str, keyid: str) -> DelegatedRole:
    return DelegatedRole(rollouts_role(model), [keyid], 1, True, paths=[f"rollouts/*/{model}.json"])


def first_role(name: str, expires: datetime) -> Metadata[Targets]:
    """Version 1 of a delegated role, which lists nothing. It says its name: see `edge_runtime.update.rules`."""
    return Metadata(Targets(expires=expires, unrecognized_fields={ROLE_FIELD: name}))


def delegated_models(targets: Targets) -> tuple[str, ...]:
    """The models that have both of their roles."""
    roles = targets.delegations.roles if targets.delegations and targets.delegations.roles else {}
    models = (name.removeprefix(_RELEASES) for name in roles if name.startswith(_RELEASES))
    return tuple(sorted(model for model in models if _ROLLOUTS + model in roles))


def person_of(key: Key) -> str | None:
    """The named person whose key this is; None for an online key."""
    person = key.unrecognized_fields.get(PERSON_FIELD)
    return person if isinstance(person, str) and person else None


def check_keys(role: str, keys: Iterable[Key]) -> None:
    """Refuse keys that would let one person reach a threshold alone: a key without a person, one public key under
    two ids, or two keys of one person; and keys of a kind that may not sign here.

    Raises: KeyRejected.
    """
    by_public: dict[str, str] = {}
    by_person: dict[str, str] = {}
    for key in keys:
        person = person_of(key)
        if person is None:
            raise KeyRejected(f"{role}: key {key.keyid[:12]} belongs to nobody; every offline key needs a named person")
        check_algorithm(key)
        public = public_value(key)
        if by_public.setdefault(public, key.keyid) != key.keyid:
            raise KeyRejected(
                f"{role}: keys {by_public[public][:12]} and {key.keyid[:12]} are the same public key; one key counts "
                "once, however many ids it has"
            )
        if by_person.setdefault(person, key.keyid) != key.keyid:
            raise KeyRejected(f"{role}: {person} already has key {by_person[person][:12]} in this role; give one key")


def public_value(key: Key) -> str:
    """The public key itself, in one spelling, whatever id it goes by."""
    value = key.keyval.get("public")
    if not isinstance(value, str):
        raise KeyRejected(f"key {key.keyid[:12]} holds no public key")
    return key_identity(value)


def signed_by(
    delegator: Root | Targets, role: str, payload: bytes, signatures: Mapping[str, Signature]
) -> dict[str, str]:
    """Who has validly signed ``payload`` for ``role``: person → key id. People count, not keys."""
    result = delegator.get_verification_result(role, payload, dict(signatures))
    people: dict[str, str] = {}
    seen: set[str] = set()
    for keyid, key in sorted(result.signed.items()):
        person, public = person_of(key), public_value(key)
        if person is not None and public not in seen:
            seen.add(public)
            people.setdefault(person, keyid)
    return people
