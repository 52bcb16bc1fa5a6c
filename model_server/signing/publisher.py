"""The one publisher: puts signed roles, plans and fresh snapshots and timestamps in front of devices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edge_runtime.bundle.names import plan_path
from edge_runtime.update.plan import Plan
from model_server.clock import Clock
from model_server.errors import KeyWithoutRole, RepositoryDamaged
from model_server.signing.keys import open_signer, read_passphrase, sign_metadata
from model_server.signing.kinds import ONLINE_USES
from model_server.signing.repository import Repository, S, to_bytes
from model_server.signing.roles import ONLINE_FIELD, Expiry, delegated_models, first_role, rollouts_role
from model_server.signing.uris import KeyUri

__all__ = ["OnlineKeys", "OnlineSigners", "Publisher", "online_key_file", "open_online_signers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSigners:
    """The keys that the server holds. None of them can sign a release."""

    rollouts: Signer
    snapshot: Signer
    timestamp: Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineKeys:
    """Where they are: key files in ``folder``, and ``uris``, by use, of keys that live elsewhere."""

    folder: Path
    passphrase_file: Path
    uris: Mapping[str, KeyUri]


@dataclass(frozen=True, slots=True)
class _Unsigned:
    """The content of a rollouts role, to be signed in its next version."""

    role: str
    metadata: Metadata[Targets]
    signer: Signer


def online_key_file(folder: Path, use: str, keyid: str | None = None) -> Path:
    """Where an online key lies: the first one, or a later one by its id."""
    return folder / (f"online-{use}.pem" if keyid is None else f"online-{use}-{keyid[:12]}.pem")


def open_online_signers(places: OnlineKeys, root: Root, targets: Targets) -> OnlineSigners:
    """Open, of all keys at hand, those that ``root`` and ``targets`` name.

    Raises: KeyRejected.
    """
    files = places.passphrase_file.exists() or len(places.uris) < len(ONLINE_USES)
    passphrase = read_passphrase(places.passphrase_file) if files else b""
    delegated = targets.delegations.keys.values() if targets.delegations else ()
    rollouts = [key for key in delegated if key.unrecognized_fields.get(ONLINE_FIELD) == "rollouts"]
    return OnlineSigners(
        rollouts=_open_one(places, "rollouts", passphrase, rollouts),
        snapshot=_open_one(places, Snapshot.type, passphrase, _keys_of(root, Snapshot.type)),
        timestamp=_open_one(places, Timestamp.type, passphrase, _keys_of(root, Timestamp.type)),
    )


def _open_one(places: OnlineKeys, use: str, passphrase: bytes, keys: Sequence[Key]) -> Signer:
    """A URI is for a key that no file holds: until a change to it is published, the file before it goes on signing."""
    later = [path for key in keys if (path := online_key_file(places.folder, use, key.keyid)).exists()]
    file, uri = later[0] if later else online_key_file(places.folder, use), places.uris.get(use)
    if uri is None:
        return open_signer(file, passphrase, keys)
    if file.exists():
        try:
            return open_signer(file, passphrase, keys)
        except KeyWithoutRole:
            pass
    return open_signer(uri, b"", keys)


class Publisher:
    """Every change of what devices see goes through here, under the repository's lock.

    ``open_signers`` opens the online keys that a root and targets name; it is called again when people have signed
    others, which happens beside a running server.
    """

    def __init__(
        self,
        repository: Repository,
        open_signers: Callable[[Root, Targets], OnlineSigners],
        clock: Clock,
        expiry: Expiry,
    ) -> None:
        """Raises: KeyRejected, RepositoryDamaged."""
        self.repository = repository
        self._open_signers = open_signers
        self._clock = clock
        self._expiry = expiry
        self._versions, self._known_signers = self._open()

    @property
    def _signers(self) -> OnlineSigners:
        if self._versions != self._present_versions():
            self._versions, self._known_signers = self._open()
        return self._known_signers

    def _open(self) -> tuple[tuple[int, int], OnlineSigners]:
        root, targets = self.repository.root().signed, self.repository.top_level_targets().signed
        return (root.version, targets.version), self._open_signers(root, targets)

    def _present_versions(self) -> tuple[int, int]:
        return self.repository.root_version(), self.repository.versions()[f"{Targets.type}.json"]

    @property
    def rollouts_key(self) -> Key:
        """The public half of the key that signs every ``rollouts-<model>``."""
        return self._signers.rollouts.public_key

    def publish(self, roles: Mapping[str, Metadata[Targets]]) -> None:
        """Publish roles that people have signed, each in its next version, at once: they go first, then the snapshot,
        then the timestamp.

        The caller has verified the signatures and put the targets in place.
        Raises: RepositoryDamaged if a version is not the next one; LeaseLost.
        """
        self._publish(roles, ())

    def publish_offline(self, roles: Mapping[str, Metadata[Targets]], root: Metadata[Root] | None) -> None:
        """Publish roles that people have signed, then a new root. The caller has verified that the roles satisfy the
        present root and the new one.

        Between the files of a rotation devices must always find something that verifies: the last snapshot and
        timestamp before the new root are signed by the keys of both, the first ones after it by the new keys alone.
        """
        with self.repository.lock():
            if roles:
                self._publish(roles, self._rollouts_below(roles))
            if root is None:
                return
            present = self.repository.root_version()
            if root.signed.version != present + 1:
                raise RepositoryDamaged(f"root version {root.signed.version} cannot follow version {present}")
            after = self._open_signers(root.signed, self.repository.top_level_targets().signed)
            self._write_snapshot(self.repository.snapshot(), after)
            self.repository.write_role(Root.type, root.signed.version, to_bytes(root))
            self._write_snapshot(self.repository.snapshot())

    def put_plan(self, plan: Plan) -> bool:
        """Make ``plan`` the one that its channel's devices see; False if it already is."""
        data = plan.to_json()
        target = TargetFile.from_data(plan_path(plan.channel, plan.model), data, ["sha256"])
        role = rollouts_role(plan.model)
        with self.repository.lock():
            metadata = self.repository.role(role)
            if metadata.signed.targets.get(target.path) == target:
                return False
            self.repository.write_target(target, data)
            metadata.signed.targets[target.path] = target
            self._publish({}, (_Unsigned(role, metadata, self._signers.rollouts),))
        return True

    def renew(self) -> tuple[str, ...]:
        """Sign again each online role that has used up half of its time; the roles that were renewed."""
        with self.repository.lock():
            found = [
                _Unsigned(role, self.repository.role(role), self._signers.rollouts)
                for role in map(rollouts_role, delegated_models(self.repository.top_level_targets().signed))
            ]
            due = tuple(each for each in found if self._due(each.metadata.signed) <= self._clock.now())
            snapshot, timestamp = self.repository.snapshot().signed, self.repository.timestamp().signed
            if due or self._due(snapshot) <= self._clock.now():
                self._publish({}, due)
                return (*(each.role for each in due), Snapshot.type, Timestamp.type)
            if self._due(timestamp) <= self._clock.now():
                self._write_timestamp(timestamp.snapshot_meta)
                return (Timestamp.type,)
        return ()

    def _rollouts_below(self, roles: Mapping[str, Metadata[Targets]]) -> list[_Unsigned]:
        """What new targets ask the server to sign: the rollouts role of a new model, which has no plans yet; and where
        they name another online key, every one."""
        targets = roles.get(Targets.type)
        if targets is None:
            return []
        signer = self._open_signers(self.repository.root().signed, targets.signed).rollouts
        other = signer.public_key.keyid != self.rollouts_key.keyid
        found, listed = [], self.repository.versions()
        for role in map(rollouts_role, delegated_models(targets.signed)):
            if f"{role}.json" not in listed:
                first = first_role(role, self._clock.now())
                first.signed.version = 0  # the one that is signed is the first
                found.append(_Unsigned(role, first, signer))
            elif other:
                found.append(_Unsigned(role, self.repository.role(role), signer))
        return found

    def _publish(self, signed: Mapping[str, Metadata[Targets]], unsigned: Iterable[_Unsigned]) -> None:
        with self.repository.lock():
            snapshot = self.repository.snapshot()
            meta = snapshot.signed.meta
            for role, metadata in signed.items():
                listed = meta.get(f"{role}.json")
                if listed is not None and metadata.signed.version != listed.version + 1:
                    raise RepositoryDamaged(
                        f"{role} version {metadata.signed.version} cannot follow version {listed.version}"
                    )
                self.repository.write_role(role, metadata.signed.version, to_bytes(metadata))
                meta[f"{role}.json"] = MetaFile(metadata.signed.version)
            for each in unsigned:
                self._create(each.role, each.metadata, self._expiry.rollouts, each.signer)
                meta[f"{each.role}.json"] = MetaFile(each.metadata.signed.version)
            self._write_snapshot(snapshot)

    def _write_snapshot(self, snapshot: Metadata[Snapshot], also: OnlineSigners | None = None) -> None:
        signers = [self._signers.snapshot, *([] if also is None else [also.snapshot])]
        data = self._create(Snapshot.type, snapshot, self._expiry.snapshot, *signers)
        digest = hashlib.sha256(data).hexdigest()
        self._write_timestamp(MetaFile(snapshot.signed.version, len(data), {"sha256": digest}), also)

    def _write_timestamp(self, snapshot: MetaFile, also: OnlineSigners | None = None) -> None:
        signers = [self._signers.timestamp, *([] if also is None else [also.timestamp])]
        timestamp = self.repository.timestamp()
        timestamp.signed.snapshot_meta = snapshot
        while True:
            data = self._sign_next(timestamp, self._expiry.timestamp, *signers)
            if self.repository.claim_timestamp(timestamp.signed.version, data):
                break
        self.repository.write_timestamp(timestamp.signed.version, data)

    def _create(self, role: str, metadata: Metadata[S], life: timedelta, *signers: Signer) -> bytes:
        """Sign the next version that is free, and put it in place. A version may be taken by a publication that was cut
        off, or by a server that has the lease now."""
        while True:
            data = self._sign_next(metadata, life, *signers)
            if self.repository.create_role(role, metadata.signed.version, data):
                return data

    def _sign_next(self, metadata: Metadata[S], life: timedelta, *signers: Signer) -> bytes:
        metadata.signed.version += 1
        metadata.signed.expires = (self._clock.now() + life).replace(microsecond=0)
        metadata.signatures.clear()
        for signer in signers:
            sign_metadata(metadata, signer, append=True)
        return to_bytes(metadata)

    def _due(self, signed: Targets | Snapshot | Timestamp) -> datetime:
        life = {Snapshot.type: self._expiry.snapshot, Timestamp.type: self._expiry.timestamp}
        return signed.expires - life.get(signed.type, self._expiry.rollouts) / 2


def _keys_of(root: Root, role: str) -> list[Key]:
    return [root.keys[keyid] for keyid in root.roles[role].keyids if keyid in root.keys]
