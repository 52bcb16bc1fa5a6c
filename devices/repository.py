"""A real TUF repository in a folder, signed here: roles, keys and layout as the server makes them, for simulations.

Everything is mutable, so that one can take a legitimate repository and turn it into an attack:

    repository = TufRepository(tmp_path / "server", now)
    repository.add_release("tiny", tiny.release(2))
    repository.set_plan(plan)
    repository.publish()
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_runtime.bundle import (
    Manifest,
    PolicyDocument,
    ReleaseDocument,
    plan_path,
    policy_path,
    target_path,
    write_manifest,
    write_policy,
    write_release,
)
from edge_runtime.update.plan import Plan
from edge_runtime.update.rules import ROLE_FIELD

__all__ = ["Release", "TufRepository", "same_key", "signer"]


class Release(Protocol):
    """What is published of a release: its manifest, and its other files by name."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def files(self) -> Mapping[str, bytes]: ...


def signer(keyid: str | None = None) -> CryptoSigner:
    private = Ed25519PrivateKey.generate()
    public = SSlibKey.from_crypto(private.public_key(), keyid=keyid)
    return CryptoSigner(private, public)


def same_key(other: CryptoSigner, keyid: str) -> CryptoSigner:
    """The key of ``other`` under another id."""
    key = other.public_key
    return CryptoSigner(other._private_key, SSlibKey(keyid, key.keytype, key.scheme, dict(key.keyval)))


class TufRepository:
    """``metadata/`` and ``targets/`` under ``folder``. ``signers`` maps a role to the keys that sign it."""

    def __init__(self, folder: Path, now: datetime, models: Iterable[str] = ("tiny",)) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets_folder = folder / "targets"
        self.metadata.mkdir(parents=True)
        self.targets_folder.mkdir()
        self.now = now
        self.signers: dict[str, list[CryptoSigner]] = {
            "root": [signer(), signer()],
            "targets": [signer(), signer()],
            "snapshot": [signer()],
            "timestamp": [signer()],
        }
        self.roles: dict[str, Targets] = {}
        self.root = Root(expires=now + timedelta(days=365), consistent_snapshot=True)
        for name in ("root", "targets", "snapshot", "timestamp"):
            self.root.roles[name] = Role([], len(self.signers[name]))
            for key in self.signers[name]:
                self.root.add_key(key.public_key, name)
        self.targets = Targets(expires=now + timedelta(days=90), delegations=Delegations({}, {}))
        self.roles["targets"] = self.targets
        self.snapshot = Snapshot(expires=now + timedelta(days=7))
        self.timestamp = Timestamp(expires=now + timedelta(days=1))
        self._written: dict[str, bytes] = {}
        for model in models:
            self.add_model(model)
        self.publish_root()
        self.root_bytes = (self.metadata / "1.root.json").read_bytes()
        self.publish()

    def add_model(self, model: str) -> None:
        self.delegate(f"releases-{model}", [signer(), signer()], 2, [f"models/{model}/*", f"models/{model}/*/*"])
        self.delegate(f"rollouts-{model}", [signer()], 1, [f"rollouts/*/{model}.json"], terminating=True)

    def delegate(
        self, name: str, keys: Sequence[CryptoSigner], threshold: int, paths: list[str], *, terminating: bool = False
    ) -> None:
        """Add or replace a delegation from the top-level targets."""
        self.signers[name] = list(keys)
        assert self.targets.delegations is not None
        assert self.targets.delegations.roles is not None
        for key in keys:
            self.targets.delegations.keys[key.public_key.keyid] = key.public_key
        self.targets.delegations.roles[name] = DelegatedRole(
            name, [key.public_key.keyid for key in keys], threshold, terminating, paths=paths
        )
        made = Targets(expires=self.now + timedelta(days=90), unrecognized_fields={ROLE_FIELD: name})
        self.roles.setdefault(name, made)

    def add_target(self, role: str, path: str, data: bytes) -> TargetFile:
        """List ``data`` at ``path`` in ``role`` and put the file in place."""
        target = TargetFile.from_data(path, data, ["sha256"])
        self.roles[role].targets[path] = target
        file = self.file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return target

    def file(self, path: str) -> Path:
        """Where the file of the target ``path`` lies."""
        target = next(role.targets[path] for role in self.roles.values() if path in role.targets)
        folder, _, name = path.rpartition("/")
        return self.targets_folder / folder / f"{target.hashes['sha256']}.{name}"

    def url_path(self, path: str) -> str:
        return "/" + str(self.file(path).relative_to(self.folder))

    def add_release(
        self, release: Release, *, ceiling: Sequence[tuple[int, int]] = (), files: Mapping[str, bytes] | None = None
    ) -> None:
        """List a release's manifest, files and release.json. ``files`` replaces some of the files' content."""
        model, number = release.manifest.model, release.manifest.release
        role = f"releases-{model}"
        self.add_target(role, target_path(model, number, "manifest.json"), write_manifest(release.manifest))
        for name, data in {**release.files, **(files or {})}.items():
            self.add_target(role, target_path(model, number, name), data)
        document = ReleaseDocument(model=model, release=number, ceiling=tuple(ceiling))
        self.add_target(role, target_path(model, number, "release.json"), write_release(document))

    def set_plan(self, plan: Plan) -> None:
        self.add_target(f"rollouts-{plan.model}", plan_path(plan.channel, plan.model), plan.to_json())

    def set_policy(self, model: str, *, min_release: int = 1, revoked: Sequence[int] = ()) -> None:
        document = PolicyDocument(model=model, min_release=min_release, revoked=tuple(revoked))
        self.add_target(f"releases-{model}", policy_path(model), write_policy(document))

    def publish_root(self) -> None:
        """Write the root as it is now; grow its version first to rotate."""
        self._write(f"{self.root.version}.root.json", self.sign("root", self.root))

    def publish(self) -> None:
        """Sign and write whatever changed, then a new snapshot and timestamp."""
        for name, role in self.roles.items():
            data = self.sign(name, role)
            if self._written.get(name) == data:
                continue
            if name in self._written:
                role.version += 1
                data = self.sign(name, role)
            self._written[name] = data
            self._write(f"{role.version}.{name}.json", data)
            self.snapshot.meta[f"{name}.json"] = MetaFile(role.version)
        self.publish_snapshot()
        self.publish_timestamp()

    def publish_snapshot(self) -> None:
        if "snapshot" in self._written:
            self.snapshot.version += 1
        data = self.sign("snapshot", self.snapshot)
        self._written["snapshot"] = data
        self._write(f"{self.snapshot.version}.snapshot.json", data)
        self.timestamp.snapshot_meta = MetaFile(
            self.snapshot.version, len(data), {"sha256": hashlib.sha256(data).hexdigest()}
        )

    def publish_timestamp(self) -> None:
        if "timestamp" in self._written:
            self.timestamp.version += 1
        self._written["timestamp"] = self.sign("timestamp", self.timestamp)
        self._write("timestamp.json", self._written["timestamp"])

    def sign(self, role: str, signed: Root | Timestamp | Snapshot | Targets) -> bytes:
        metadata = Metadata(signed)
        for key in self.signers[role]:
            metadata.sign(key, append=True)
        return metadata.to_bytes()

    def _write(self, name: str, data: bytes) -> None:
        (self.metadata / name).write_bytes(data)
