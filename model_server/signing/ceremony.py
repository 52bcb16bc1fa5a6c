"""The first ceremony: `init` makes the keys of named people and the first metadata.

It runs on one machine. Moving each person's files to that person, and deleting them here, is what makes the two-person
rule mean something outside a demonstration. Everything later is a change: see `model_server.signing.changes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Delegations, Metadata, MetaFile, Role, Root, Snapshot, Targets, Timestamp

from edge_runtime.bundle.names import check_model
from model_server.errors import SettingsError
from model_server.signing.keys import online_signer, personal_signer, save_key
from model_server.signing.kinds import ONLINE_USES
from model_server.signing.people import check_passphrase, check_person
from model_server.signing.publisher import online_key_file
from model_server.signing.repository import Repository, S, to_bytes
from model_server.signing.roles import (
    ROOT_PEOPLE,
    THRESHOLD,
    Expiry,
    check_keys,
    first_role,
    releases_delegation,
    releases_role,
    rollouts_delegation,
    rollouts_role,
)

__all__ = ["Keys", "create_repository", "make_keys"]


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
    or the people's passphrase is too short.
    """
    for person in people:
        check_person(person)
    if len(set(people)) != len(people) or len(people) < ROOT_PEOPLE:
        raise SettingsError(
            f"name at least {ROOT_PEOPLE} different people (--person), so that root stays 2 of 3 when a key is lost"
        )
    check_passphrase(passphrase)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def personal(role: str, holders: Sequence[str]) -> dict[str, CryptoSigner]:
        return {
            person: personal_signer(_save_new(folder / f"{role}-{person}.pem", passphrase), person)
            for person in holders
        }

    return Keys(
        root=personal("root", people[:ROOT_PEOPLE]),
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
    for model in sorted({check_model(model) for model in models}):
        _add_delegations(targets, model, [signer.public_key for signer in managers], plans.public_key)
        for role, life, signers in (
            (releases_role(model), expiry.releases, managers),
            (rollouts_role(model), expiry.rollouts, [plans]),
        ):
            repository.write_role(role, 1, _signed(first_role(role, _until(now, life)), signers))
            snapshot.meta[f"{role}.json"] = MetaFile(1)
    repository.write_role(Targets.type, 1, _signed(Metadata(targets), keys.targets.values()))
    root_bytes = _signed(Metadata(root), keys.root.values())
    repository.write_role(Root.type, 1, root_bytes)
    snapshot_bytes = _signed(Metadata(snapshot), [keys.online["snapshot"]])
    repository.write_role(Snapshot.type, 1, snapshot_bytes)
    meta = MetaFile(1, len(snapshot_bytes), {"sha256": hashlib.sha256(snapshot_bytes).hexdigest()})
    timestamp = Metadata(Timestamp(expires=_until(now, expiry.timestamp), snapshot_meta=meta))
    repository.write_timestamp(1, _signed(timestamp, [keys.online["timestamp"]]))
    return root_bytes


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
