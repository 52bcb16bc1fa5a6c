"""What the server's repository says about one model, read through TUF; and the download of a release.

One object a check: it sees one consistent version of everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edge_runtime.bundle import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    MAX_POLICY_BYTES,
    MAX_RELEASE_BYTES,
    RELEASE_FILE,
    Artifact,
    Delta,
    Golden,
    Manifest,
    ManifestError,
    PolicyDocument,
    ReleaseDocument,
    UnsupportedFormat,
    plan_path,
    policy_path,
    read_manifest,
    read_policy,
    read_release,
    target_path,
)
from edge_runtime.device import Device, choose_artifact
from edge_runtime.disk import Disk, write_atomic
from edge_runtime.errors import Outcome, SlotDamaged, UpdateError
from edge_runtime.store import Slot, Store
from edge_runtime.update.conditional import MAX_TIMESTAMP_BYTES, Scope
from edge_runtime.update.download import Refused, discard, download, etag_path, missing
from edge_runtime.update.fetcher import Answer, Transport
from edge_runtime.update.metadata import MetadataClient
from edge_runtime.update.pacing import Pacing
from edge_runtime.update.patching import PatchFailed, choose, patch
from edge_runtime.update.plan import MAX_PLAN_BYTES, Ceiling, Plan
from edge_runtime.update.tuf_fetcher import TufFetcher

__all__ = ["Repository"]

T = TypeVar("T")
Note = Callable[[Outcome, int, str], None]  # something on the way that a report must say, and the release it is about

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FAILED = ".failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _SignedDelta:
    """A delta that is signed as release.json says, and the slot that it starts from."""

    release: int
    delta: Delta
    target: TargetFile
    slot: Slot


class Repository:
    """`refresh` first. The readers raise `UpdateError` and `StoreError`; documents are kept under their digest, so that
    one that did not change is not downloaded again."""

    def __init__(
        self, *, scope: Scope, root: bytes, folder: Path, transport: Transport, disk: Disk, now: datetime
    ) -> None:
        self._scope = scope
        self._transport = transport
        self._disk = disk
        self._documents = folder / "documents"
        self._metadata = folder / "metadata"
        disk.mkdir(self._documents)
        disk.mkdir(self._metadata)
        self._client = MetadataClient(
            folder=self._metadata,
            url=f"{scope.server}/metadata/",
            root=root,
            model=scope.model,
            fetcher=TufFetcher(transport),
            disk=disk,
            now=now,
        )
        self._used: set[str] = set()
        self.timestamp_sha256 = ""
        self.etag: str | None = None

    def refresh(self, answer: Answer) -> None:
        """Run TUF's workflow with the timestamp in ``answer``, or with the one on disk if the answer is 304."""
        body = answer.body
        if answer.status == 304:
            try:
                body = self._disk.read(self._metadata / "timestamp.json")
            except FileNotFoundError:
                answer = self._transport.fetch(f"{self._scope.server}/metadata/timestamp.json", MAX_TIMESTAMP_BYTES)
                body = answer.body
        self._client.refresh_model(body)
        trusted = self._client.timestamp_bytes
        self.timestamp_sha256 = hashlib.sha256(trusted).hexdigest()
        self.etag = answer.etag if trusted == body else None

    @property
    def expires(self) -> datetime:
        return self._client.expires

    def policy(self) -> PolicyDocument:
        """The floor and the revocations; none if the managers signed none."""
        target = self._client.released(policy_path(self._scope.model))
        if target is None:
            return PolicyDocument(model=self._scope.model)
        policy = self._read(target, MAX_POLICY_BYTES, read_policy, Outcome.VERIFICATION_FAILED)
        self._check_about(target, policy.model, None)
        return policy

    def plan(self) -> Plan | None:
        target = self._client.planned(plan_path(self._scope.channel, self._scope.model))
        if target is None:
            return None
        plan = self._read(target, MAX_PLAN_BYTES, Plan.from_json, Outcome.PLAN_INVALID)
        if (plan.model, plan.channel) != (self._scope.model, self._scope.channel):
            raise UpdateError(
                Outcome.PLAN_INVALID, f"{target.path} is a plan for {plan.model} on channel {plan.channel}"
            )
        return plan

    def ceiling(self, release: int) -> Ceiling | None:
        """The ceiling of a signed release, empty if it has none. None: nobody signed this release."""
        if self._released(release, MANIFEST_FILE) is None:
            return None
        document = self._document(release)
        return () if document is None else document.ceiling

    def manifest_sha256(self, release: int) -> str | None:
        """The digest that is signed for a release's manifest, None if nobody signed it."""
        target = self._released(release, MANIFEST_FILE)
        return None if target is None else self._digest(target)

    def install(
        self, release: int, store: Store, device: Device, engines: Sequence[str], note: Note, pacing: Pacing
    ) -> Slot:
        """Download what this device needs of a release, verify it and stage it. The artifact comes as a delta where
        one is signed for a release that is here; ``note`` is told when it does not make the signed file. ``pacing`` is
        asked before the first byte of these files, and while they come.

        Raises `UpdateError` with ``INCOMPATIBLE``, ``DOWNLOAD_FAILED`` or ``VERIFICATION_FAILED``, `StoreError`, and
        what ``pacing`` raises.
        """
        manifest_bytes, manifest = self._manifest(release)
        artifact = choose_artifact(manifest, device, engines)
        targets = {ref.file: self._target_of(release, ref) for ref in (artifact.golden, artifact)}
        parts = {file: store.incoming / self._digest(target) for file, target in targets.items()}
        delta = self._delta(release, artifact, store, parts[artifact.file])
        self._forget_other_downloads(
            store,
            {*parts.values(), *([] if delta is None else [store.incoming / self._digest(delta.target)])},
            keep_failed=True,
        )
        coming = {file: (target, parts[file]) for file, target in targets.items()}
        if delta is not None:
            coming[artifact.file] = (delta.target, store.incoming / self._digest(delta.target))
        pacing.ask(sum(missing(target, part, self._disk) for target, part in coming.values()))
        for file, target in targets.items():
            if file == artifact.file and delta is not None:
                if self._patched(delta, target, parts[file], store, note, pacing):
                    continue
                pacing.ask(missing(target, parts[file], self._disk))
            download(self._transport, self._url(target), target, parts[file], self._disk, pacing)
        files: dict[str, bytes | Path] = {**parts}
        document = self._released(release, RELEASE_FILE)
        if document is not None:
            files[RELEASE_FILE] = self._fetch(document, MAX_RELEASE_BYTES, Outcome.VERIFICATION_FAILED)
        try:
            slot = store.install(manifest_bytes, artifact, files)
        except SlotDamaged as error:
            for part in parts.values():
                discard(part, self._disk)
            raise UpdateError(Outcome.VERIFICATION_FAILED, str(error)) from error
        self._forget_other_downloads(store, set())
        return slot

    def forget_other_documents(self) -> None:
        """Remove the documents that this check did not read."""
        for name in self._disk.listdir(self._documents):
            if name not in self._used:
                self._disk.unlink(self._documents / name)

    def _document(self, release: int) -> ReleaseDocument | None:
        """The signed release.json, None if there is none."""
        target = self._released(release, RELEASE_FILE)
        if target is None:
            return None
        document = self._read(target, MAX_RELEASE_BYTES, read_release, Outcome.VERIFICATION_FAILED)
        self._check_about(target, document.model, document.release)
        return document

    def _delta(self, release: int, artifact: Artifact, store: Store, part: Path) -> _SignedDelta | None:
        """The delta to take: the smallest one for a release that is here, unless the whole file has begun to come."""
        document = self._document(release)
        if document is None or not document.deltas or self._disk.exists(etag_path(part)):
            return None
        here: list[Slot] = []
        for installed in (store.slots.active, store.slots.previous):
            if installed is not None:
                with contextlib.suppress(SlotDamaged):
                    here.append(store.slot(installed.release))
        chosen = choose(document.deltas, artifact, here)
        if chosen is None:
            return None
        delta, slot = chosen
        target = self._released(release, delta.file)
        if target is None or (target.length, self._digest(target)) != (delta.bytes, delta.sha256):
            return None
        if self._disk.exists(_failed_path(store.incoming / delta.sha256)):
            return None  # it was tried and reported; the whole file has not come yet
        return _SignedDelta(release=release, delta=delta, target=target, slot=slot)

    def _patched(
        self, delta: _SignedDelta, target: TargetFile, part: Path, store: Store, note: Note, pacing: Pacing
    ) -> bool:
        """Make ``part`` by the delta. False where that failed, which is noted: then the whole file must come. A
        download of the delta that only broke off rises, and goes on at the next check."""
        file = store.incoming / self._digest(delta.target)
        try:
            download(self._transport, self._url(delta.target), delta.target, file, self._disk, pacing)
            patch(delta.slot, file, target, part, self._disk)
        except (PatchFailed, UpdateError) as error:
            if not isinstance(error, PatchFailed | Refused) and error.outcome is not Outcome.VERIFICATION_FAILED:
                raise
            note(Outcome.DELTA_MISMATCH, delta.release, f"{delta.delta.file}: {error}; the whole file is downloaded")
            discard(file, self._disk)
            write_atomic(self._disk, _failed_path(file), b"")
            return False
        discard(file, self._disk)
        return True

    def _manifest(self, release: int) -> tuple[bytes, Manifest]:
        target = self._released(release, MANIFEST_FILE)
        if target is None:
            raise UpdateError(Outcome.PLAN_INVALID, f"nobody signed release {release} of {self._scope.model}")
        manifest = self._read(target, MAX_MANIFEST_BYTES, read_manifest, Outcome.VERIFICATION_FAILED)
        self._check_about(target, manifest.model, manifest.release)
        return self._fetch(target, MAX_MANIFEST_BYTES, Outcome.VERIFICATION_FAILED), manifest

    def _target_of(self, release: int, ref: Artifact | Golden) -> TargetFile:
        """The signed target of a file of the manifest. What is signed and what the manifest says must agree, before a
        byte of it is downloaded."""
        target = self._released(release, ref.file)
        if target is None or (target.length, self._digest(target)) != (ref.bytes, ref.sha256):
            raise UpdateError(
                Outcome.VERIFICATION_FAILED,
                f"release {release}: {ref.file} is not signed with the size and digest that its manifest states",
            )
        return target

    def _released(self, release: int, file: str) -> TargetFile | None:
        return self._client.released(target_path(self._scope.model, release, file))

    def _read(self, target: TargetFile, cap: int, read: Callable[[bytes], T], invalid: Outcome) -> T:
        try:
            return read(self._fetch(target, cap, invalid))
        except UnsupportedFormat as error:
            raise UpdateError(Outcome.INCOMPATIBLE, f"{target.path}: {error}") from error
        except ManifestError as error:
            raise UpdateError(invalid, f"{target.path}: {error}") from error

    def _fetch(self, target: TargetFile, cap: int, invalid: Outcome) -> bytes:
        """A small document: from disk if it is there and right, else downloaded, verified and kept."""
        if target.length > cap:
            raise UpdateError(invalid, f"{target.path} has {target.length} bytes; at most {cap} are read")
        digest = self._digest(target)
        self._used.add(digest)
        path = self._documents / digest
        try:
            data = self._disk.read(path)
            target.verify_length_and_hashes(data)
        except (FileNotFoundError, LengthOrHashMismatchError):
            data = self._transport.fetch(self._url(target), target.length).body
            try:
                target.verify_length_and_hashes(data)
            except LengthOrHashMismatchError as error:
                raise UpdateError(Outcome.VERIFICATION_FAILED, f"{target.path}: {error}; it was not used") from error
            write_atomic(self._disk, path, data)
        return data

    def _check_about(self, target: TargetFile, model: str, release: int | None) -> None:
        """A signed document must be about the model and release whose path it has."""
        path = policy_path(model) if release is None else target_path(model, release, target.path.rpartition("/")[2])
        if path != target.path:
            raise UpdateError(Outcome.VERIFICATION_FAILED, f"{target.path} is about {path}; it was not used")

    def _digest(self, target: TargetFile) -> str:
        digest = target.hashes.get("sha256", "")
        if not _SHA256.fullmatch(digest):  # it becomes part of a file name and of an address
            raise UpdateError(Outcome.METADATA_REJECTED, f"{target.path} is signed without a sha256")
        return digest

    def _url(self, target: TargetFile) -> str:
        folder, _, name = target.path.rpartition("/")
        prefix = f"{self._digest(target)}." if self._client.consistent else ""
        return f"{self._scope.server}/targets/{folder}/{prefix}{name}"

    def _forget_other_downloads(self, store: Store, keep: set[Path], *, keep_failed: bool = False) -> None:
        names = {part.name for part in keep} | {etag_path(part).name for part in keep}
        for name in self._disk.listdir(store.incoming):
            if name not in names and not (keep_failed and name.endswith(_FAILED)):
                self._disk.unlink(store.incoming / name)


def _failed_path(delta: Path) -> Path:
    """Says, until the release is installed, that a delta did not make its file."""
    return delta.with_name(delta.name + _FAILED)
