"""The key ceremony: `init` makes the keys of named people and the first metadata, `keys delegate` adds a model.

Both run on the machine that has the key files. Moving each person's files to that person, and deleting them here, is
what makes the two-person rule mean something outside a demonstration.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Delegations, Metadata, MetaFile, Role, Root, Snapshot, Targets, Timestamp

from edge_runtime.bundle.names import check_model
from model_server.errors import KeyRejected, ReleaseConflict, SettingsError, ThresholdNotMet
from model_server.signing.keys import online_signer, open_signer, personal_signer, save_key
from model_server.signing.publisher import ONLINE_USES, Publisher, online_key_file
from model_server.signing.repository import Repository, S, to_bytes
from model_server.signing.roles import (
    THRESHOLD,
    Expiry,
    check_keys,
    delegated_models,
    releases_delegation,
    releases_role,
    rollouts_delegation,
    rollouts_role,
    signed_by,
)

__all__ = ["PEOPLE_NEEDED", "Keys", "create_repository", "delegate_model", "make_keys"]

MIN_PASSPHRASE = 12  # characters; a stolen key file is tried offline, as fast as the thief can
PEOPLE_NEEDED = 3  # root is 2 of 3: one lost key must not end the repository
_PERSON = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The signers of a new repository: by person, and the online ones by use."""

    root: Mapping[str, CryptoSigner]
    targets: Mapping[str, CryptoSigner]
    releases: Mapping[str, CryptoSigner]
    online: Mapping[str, CryptoSigner]


def make_keys(folder: Path, people: Sequence[str], passphrase: bytes, online_passphrase: bytes) -> Keys:
    """Make the key files: ``root-``, ``targets-`` and ``releases-<person>.pem`` for each person (root for the first
    three), ``online-<use>.pem`` for the server.

    Raises: SettingsError for fewer than three people or a name outside ``a-z 0-9 -``; KeyRejected if a file exists
    or the people's passphrase is shorter than `MIN_PASSPHRASE`.
    """
    for person in people:
        if not _PERSON.fullmatch(person):
            raise SettingsError(f"{person!r} is not a person's name here: use 1 to 32 of a-z 0-9 - , as in 'alice'")
    if len(set(people)) != len(people) or len(people) < PEOPLE_NEEDED:
        raise SettingsError(
            f"name at least {PEOPLE_NEEDED} different people (--person), so that root stays 2 of 3 when a key is lost"
        )
    if len(passphrase.decode(errors="replace")) < MIN_PASSPHRASE:
        raise KeyRejected(f"the passphrase of people's keys must have at least {MIN_PASSPHRASE} characters")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def personal(role: str, holders: Sequence[str]) -> dict[str, CryptoSigner]:
        return {
            person: personal_signer(_save_new(folder / f"{role}-{person}.pem", passphrase), person)
            for person in holders
        }

    return Keys(
        root=personal("root", people[:PEOPLE_NEEDED]),
        targets=personal("targets", people),
        releases=personal("releases", people),
        online={
            use: online_signer(_save_new(online_key_file(folder, use), online_passphrase), use) for use in ONLINE_USES
        },
    )


def create_repository(
    repository: Repository, keys: Keys, models: Iterable[str], now: datetime, expiry: Expiry
) -> bytes:
    """Sign and write version 1 of every role. Returns the root metadata, which devices are given as their trust."""
    for role, holders in (("root", keys.root), ("targets", keys.targets), ("releases", keys.releases)):
        check_keys(role, [signer.public_key for signer in holders.values()])
    managers, plans = list(keys.releases.values()), keys.online["rollouts"]
    root = Root(expires=_until(now, expiry.root), consistent_snapshot=True)
    for role, threshold, signers in (
        (Root.type, THRESHOLD, list(keys.root.values())),
        (Targets.type, THRESHOLD, list(keys.targets.values())),
        (Snapshot.type, 1, [keys.online["snapshot"]]),
        (Timestamp.type, 1, [keys.online["timestamp"]]),
    ):
        root.roles[role] = Role([], threshold)
        for signer in signers:
            root.add_key(signer.public_key, role)
    # The top-level list of targets stays empty for ever: a target listed here would need no release manager.
    targets = Targets(expires=_until(now, expiry.targets), delegations=Delegations({}, {}))
    snapshot = Snapshot(expires=_until(now, expiry.snapshot))
    repository.create()
    for model in sorted({check_model(model) for model in models}):
        _add_delegations(targets, model, [signer.public_key for signer in managers], plans.public_key)
        for role, life, signers in (
            (releases_role(model), expiry.releases, managers),
            (rollouts_role(model), expiry.rollouts, [plans]),
        ):
            first = Metadata(Targets(expires=_until(now, life)))
            repository.write_role(role, 1, _signed(first, signers))
            snapshot.meta[f"{role}.json"] = MetaFile(1)
    repository.write_role(Targets.type, 1, _signed(Metadata(targets), keys.targets.values()))
    root_bytes = _signed(Metadata(root), keys.root.values())
    repository.write_role(Root.type, 1, root_bytes)
    snapshot_bytes = _signed(Metadata(snapshot), [keys.online["snapshot"]])
    repository.write_role(Snapshot.type, 1, snapshot_bytes)
    meta = MetaFile(1, len(snapshot_bytes), {"sha256": hashlib.sha256(snapshot_bytes).hexdigest()})
    timestamp = Metadata(Timestamp(expires=_until(now, expiry.timestamp), snapshot_meta=meta))
    repository.write_timestamp(_signed(timestamp, [keys.online["timestamp"]]))
    return root_bytes


def delegate_model(
    publisher: Publisher,
    model: str,
    targets_keys: Sequence[Path],
    releases_keys: Sequence[Path],
    passphrase: bytes,
    now: datetime,
    expiry: Expiry,
) -> None:
    """Give a new model its two roles: sign the next ``targets`` with the targets keys, and the first, empty
    ``releases-<model>`` with the releases keys, which also become the keys of that role.

    Every releases key must already belong to a person in the present metadata.
    Raises: KeyRejected, ThresholdNotMet, ReleaseConflict if the model is delegated already.
    """
    repository = publisher.repository
    with repository.lock():
        root, targets = repository.root().signed, repository.top_level_targets()
        if model in delegated_models(targets.signed):
            raise ReleaseConflict(f"{model} is delegated already")
        delegations = targets.signed.delegations or Delegations({}, {})
        known = (*root.keys.values(), *delegations.keys.values())
        managers = [open_signer(path, passphrase, known) for path in releases_keys]
        check_keys(releases_role(model), [manager.public_key for manager in managers])
        if len(managers) < THRESHOLD:
            raise ThresholdNotMet(f"{releases_role(model)} needs the keys of {THRESHOLD} people, not {len(managers)}")
        targets.signed.delegations = delegations
        _add_delegations(targets.signed, model, [manager.public_key for manager in managers], publisher.rollouts_key)
        targets.signed.version += 1
        targets.signed.expires = _until(now, expiry.targets)
        _signed(targets, [open_signer(path, passphrase, known) for path in targets_keys])
        people = signed_by(root, Targets.type, targets.signed_bytes, targets.signatures)
        if len(people) < root.roles[Targets.type].threshold:
            raise ThresholdNotMet(
                f"targets needs {root.roles[Targets.type].threshold} people; signed by {', '.join(people) or 'nobody'}"
            )
        releases = Metadata(Targets(expires=_until(now, expiry.releases)))
        _signed(releases, managers)
        publisher.publish(
            {
                Targets.type: targets,
                releases_role(model): releases,
                rollouts_role(model): publisher.first_rollouts(),
            }
        )


def _add_delegations(targets: Targets, model: str, managers: Sequence[Key], online: Key) -> None:
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise SettingsError("the repository's targets metadata has no delegations")
    for key in (*managers, online):
        delegations.keys[key.keyid] = key
    for role in (
        releases_delegation(model, [key.keyid for key in managers]),
        rollouts_delegation(model, online.keyid),
    ):
        delegations.roles[role.name] = role


def _save_new(path: Path, passphrase: bytes) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.generate()
    save_key(path, private, passphrase)
    return private


def _signed(metadata: Metadata[S], signers: Iterable[CryptoSigner]) -> bytes:
    """Replace the signatures by those of ``signers``; the bytes to publish."""
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return to_bytes(metadata)


def _until(now: datetime, life: timedelta) -> datetime:
    return (now + life).replace(microsecond=0)
