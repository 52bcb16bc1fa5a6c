"""The one publisher: puts signed roles, plans and fresh snapshots and timestamps in front of devices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
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
from model_server.signing.repository import Repository, to_bytes
from model_server.signing.roles import ONLINE_FIELD, Expiry, delegated_models, first_role, rollouts_role
from model_server.signing.uris import KeyUri

__all__ = ["ONLINE_USES", "OnlineKeys", "OnlineSigners", "Publisher", "online_key_file", "open_online_signers"]

ONLINE_USES = ("rollouts", "snapshot", "timestamp")


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
        versions = (self.repository.root().signed.version, self.repository.top_level_targets().signed.version)
        if self._versions != versions:
            self._versions, self._known_signers = self._open()
        return self._known_signers

    def _open(self) -> tuple[tuple[int, int], OnlineSigners]:
        root, targets = self.repository.root().signed, self.repository.top_level_targets().signed
        return (root.version, targets.version), self._open_signers(root, targets)

    @property
    def rollouts_key(self) -> Key:
        """The public half of the key that signs every ``rollouts-<model>``."""
        return self._signers.rollouts.public_key

    def first_rollouts(self, model: str) -> Metadata[Targets]:
        """Version 1, without plans, of a new model's ``rollouts-<model>``."""
        metadata = first_role(rollouts_role(model), self._until(self._expiry.rollouts))
        sign_metadata(metadata, self._signers.rollouts)
        return metadata

    def publish(self, roles: Mapping[str, Metadata[Targets]]) -> None:
        """Publish the next version of each role at once: roles, then the snapshot, then the timestamp.

        The caller has verified the signatures and put the targets in place.
        Raises: RepositoryDamaged if a version is not the next one.
        """
        with self.repository.lock():
            snapshot = self.repository.snapshot()
            for role, metadata in roles.items():
                listed = snapshot.signed.meta.get(f"{role}.json")
                if listed is not None and metadata.signed.version != listed.version + 1:
                    raise RepositoryDamaged(
                        f"{role} version {metadata.signed.version} cannot follow version {listed.version}"
                    )
                self.repository.write_role(role, metadata.signed.version, to_bytes(metadata))
                snapshot.signed.meta[f"{role}.json"] = MetaFile(metadata.signed.version)
            self._write_snapshot(snapshot)

    def publish_offline(self, roles: Mapping[str, Metadata[Targets]], root: Metadata[Root] | None) -> None:
        """Publish roles that people have signed, then a new root. The caller has verified that the roles satisfy the
        present root and the new one.

        Between the files of a rotation devices must always find something that verifies: the last snapshot and
        timestamp before the new root are signed by the keys of both, the first ones after it by the new keys alone.
        """
        with self.repository.lock():
            if roles:
                self.publish({**roles, **self._resigned_rollouts(roles)})
            if root is None:
                return
            present = self.repository.root().signed
            if root.signed.version != present.version + 1:
                raise RepositoryDamaged(f"root version {root.signed.version} cannot follow version {present.version}")
            after = self._open_signers(root.signed, self.repository.top_level_targets().signed)
            self._write_snapshot(self.repository.snapshot(), after)
            self.repository.write_role(Root.type, root.signed.version, to_bytes(root))
            self._write_snapshot(self.repository.snapshot())

    def _resigned_rollouts(self, roles: Mapping[str, Metadata[Targets]]) -> dict[str, Metadata[Targets]]:
        """Where new targets name another online key: every rollouts role, signed by that one."""
        targets = roles.get(Targets.type)
        if targets is None:
            return {}
        signer = self._open_signers(self.repository.root().signed, targets.signed).rollouts
        if signer.public_key.keyid == self.rollouts_key.keyid:
            return {}
        found = {}
        for model in delegated_models(targets.signed):
            role = rollouts_role(model)
            metadata = roles[role] if role in roles else self.repository.role(role)
            self._sign_next(metadata, signer, self._expiry.rollouts)
            found[role] = metadata
        return found

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
            self._sign_next(metadata, self._signers.rollouts, self._expiry.rollouts)
            self.publish({role: metadata})
        return True

    def renew(self) -> tuple[str, ...]:
        """Sign again each online role that has used up half of its time; the roles that were renewed."""
        with self.repository.lock():
            due: dict[str, Metadata[Targets]] = {}
            for model in delegated_models(self.repository.top_level_targets().signed):
                metadata = self.repository.role(rollouts_role(model))
                if self._half_used(metadata.signed.expires, self._expiry.rollouts):
                    self._sign_next(metadata, self._signers.rollouts, self._expiry.rollouts)
                    due[rollouts_role(model)] = metadata
            snapshot, timestamp = self.repository.snapshot(), self.repository.timestamp()
            if due or self._half_used(snapshot.signed.expires, self._expiry.snapshot):
                self.publish(due)
                return (*due, Snapshot.type, Timestamp.type)
            if self._half_used(timestamp.signed.expires, self._expiry.timestamp):
                self._write_timestamp(timestamp.signed.snapshot_meta)
                return (Timestamp.type,)
        return ()

    def _write_snapshot(self, snapshot: Metadata[Snapshot], also: OnlineSigners | None = None) -> None:
        snapshot.signed.version += 1
        snapshot.signed.expires = self._until(self._expiry.snapshot)
        sign_metadata(snapshot, self._signers.snapshot)
        if also is not None:
            sign_metadata(snapshot, also.snapshot, append=True)
        data = to_bytes(snapshot)
        self.repository.write_role(Snapshot.type, snapshot.signed.version, data)
        digest = hashlib.sha256(data).hexdigest()
        self._write_timestamp(MetaFile(snapshot.signed.version, len(data), {"sha256": digest}), also)

    def _write_timestamp(self, snapshot: MetaFile, also: OnlineSigners | None = None) -> None:
        timestamp = self.repository.timestamp()
        timestamp.signed.version += 1
        timestamp.signed.expires = self._until(self._expiry.timestamp)
        timestamp.signed.snapshot_meta = snapshot
        sign_metadata(timestamp, self._signers.timestamp)
        if also is not None:
            sign_metadata(timestamp, also.timestamp, append=True)
        self.repository.write_timestamp(to_bytes(timestamp))

    def _sign_next(self, metadata: Metadata[Targets], signer: Signer, life: timedelta) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = self._until(life)
        sign_metadata(metadata, signer)

    def _until(self, life: timedelta) -> datetime:
        return (self._clock.now() + life).replace(microsecond=0)

    def _half_used(self, expires: datetime, life: timedelta) -> bool:
        return expires - self._clock.now() < life / 2


def _keys_of(root: Root, role: str) -> list[Key]:
    return [root.keys[keyid] for keyid in root.roles[role].keyids if keyid in root.keys]
