"""The life of a release on the server: staged, signed, published. The shell around `signing_request` and `roles`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, TargetFile, Targets

from edge_runtime.bundle import (
    MANIFEST_FILE,
    RELEASE_FILE,
    FileRef,
    Manifest,
    check_model,
    check_release,
    read_manifest,
    read_release,
)
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import Lock, reading, writing
from model_server.errors import (
    ReleaseConflict,
    ReleaseNotNewer,
    RepositoryDamaged,
    SignatureRejected,
    ThresholdNotMet,
    UnknownModel,
    UnknownRelease,
)
from model_server.releases.blobs import Blobs
from model_server.releases.delta.offering import DeltaLimits, Older
from model_server.releases.signing_request import highest_release, next_metadata
from model_server.releases.staging import stage_files
from model_server.releases.tables import FileRow, ReleaseRow, ReleaseState, SignatureRow
from model_server.signing.publisher import Publisher
from model_server.signing.repository import parse_metadata, to_bytes
from model_server.signing.roles import Expiry, delegated_models, person_of, releases_role, signed_by

__all__ = ["ReleaseInfo", "ReleaseService", "SignatureInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureInfo:
    person: str
    keyid: str
    signed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseInfo:
    """A release as the API shows it. ``threshold`` is how many people must sign."""

    model: str
    release: int
    version: str
    state: ReleaseState
    bundle_sha256: str
    metadata_version: int
    files: tuple[FileRef, ...]
    signatures: tuple[SignatureInfo, ...]
    threshold: int
    staged_by: str
    staged_at: datetime
    published_at: datetime | None


class ReleaseService:
    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        blobs: Blobs,
        clock: Clock,
        expiry: Expiry,
        deltas: DeltaLimits | None = None,
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._repository = publisher.repository
        self._blobs = blobs
        self._clock = clock
        self._expiry = expiry
        self._deltas = deltas or DeltaLimits()
        self._models: tuple[tuple[int, int], tuple[str, ...]] | None = None
        self._manifests: dict[tuple[str, int], Manifest] = {}

    # Looking

    def models(self) -> tuple[str, ...]:
        """The delegated models; metadata is read again only after something was published."""
        state = self._repository.state()
        if self._models is None or self._models[0] != state:
            self._models = (state, delegated_models(self._repository.top_level_targets().signed))
        return self._models[1]

    def list(self, model: str) -> tuple[ReleaseInfo, ...]:
        """Every release of ``model``, oldest first. Raises UnknownModel."""
        threshold = self._threshold(self._delegating(model), model)
        with reading(self._engine) as session:
            rows = session.execute(
                select(ReleaseRow).where(ReleaseRow.model == model).order_by(ReleaseRow.release)
            ).scalars()
            return tuple(_info(row, threshold) for row in rows)

    def show(self, model: str, release: int) -> ReleaseInfo:
        threshold = self._threshold(self._delegating(model), model)
        with reading(self._engine) as session:
            return _info(self._row(session, model, release), threshold)

    def is_published(self, model: str, release: int) -> bool:
        with reading(self._engine) as session:
            row = self._find(session, model, release)
            return row is not None and row.state == ReleaseState.PUBLISHED

    def check_published(self, model: str, release: int) -> None:
        """Raises: UnknownModel, UnknownRelease unless the release is published."""
        self._delegating(model)
        if not self.is_published(model, release):
            raise UnknownRelease(f"{model} {release} is not published, so it cannot be rolled out")

    def ceiling(self, model: str, release: int) -> tuple[tuple[tuple[int, int], ...], datetime]:
        """The signed ceiling of a release, and when it was published. Raises: UnknownRelease, RepositoryDamaged."""
        steps = read_release(self.read_file(model, release, RELEASE_FILE)).ceiling
        with reading(self._engine) as session:
            return steps, self._row(session, model, release).published_at or self._clock.now()

    def manifest(self, model: str, release: int) -> Manifest | None:
        """The manifest of a published release; None if there is no such release."""
        known = self._manifests.get((model, release))
        if known is None and self.is_published(model, release):
            known = read_manifest(self.read_file(model, release, MANIFEST_FILE))
            self._manifests[model, release] = known
        return known

    def read_file(self, model: str, release: int, file: str) -> bytes:
        """A file of a staged or published release, checked against its digest."""
        with reading(self._engine) as session:
            row = self._row(session, model, release)
            for stored in row.files:
                if stored.file == file:
                    return self._blobs.read(stored.sha256)
        raise UnknownRelease(f"{model} {release} has no file {file!r}")

    def proposal(self, model: str, release: int) -> bytes:
        """The metadata to sign, with the signatures that it has so far."""
        with reading(self._engine) as session:
            return to_bytes(_signed_proposal(self._row(session, model, release)))

    # Changing

    def stage(self, path: Path, ceiling: tuple[tuple[int, int], ...], actor: str) -> ReleaseInfo:
        """Check the bundle at ``path``, keep its files and write the proposal.

        Raises: an error of `edge_runtime.bundle`; UnknownModel; ReleaseNotNewer; ReleaseConflict if another release of
        the model waits for signatures.
        """
        with reading(self._engine) as session:
            audit_head = audit.head(session)
        staged = stage_files(path, self._blobs, ceiling, audit_head, self._older, self._deltas)
        model, release = staged.manifest.model, staged.manifest.release
        with self._repository.lock(), writing(self._engine, _lock(model)) as session:
            delegating = self._delegating(model)
            current = self._repository.role(releases_role(model)).signed
            waiting = session.execute(
                select(ReleaseRow).where(ReleaseRow.model == model, ReleaseRow.state == ReleaseState.STAGED)
            ).scalar_one_or_none()
            if waiting is not None:
                raise ReleaseConflict(
                    f"{model} {waiting.release} is staged and waits for signatures: publish or withdraw it first"
                )
            if self._find(session, model, release) is not None:
                raise ReleaseNotNewer(f"{model} {release} is published already: build it under a higher number")
            expires = (self._clock.now() + self._expiry.releases).replace(microsecond=0)
            proposal = Metadata(next_metadata(model, release, current, staged.files, expires))
            row = ReleaseRow(
                model=model,
                release=release,
                version=staged.manifest.version,
                state=ReleaseState.STAGED.value,
                bundle_sha256=staged.bundle_sha256,
                metadata_version=proposal.signed.version,
                pending=to_bytes(proposal),
                staged_by=actor,
                staged_at=self._clock.now(),
                files=[FileRow(file=ref.file, bytes=ref.bytes, sha256=ref.sha256) for ref in staged.files.values()],
            )
            session.add(row)
            session.flush()
            self._log(session, actor, "release.staged", model, release, bundle_sha256=staged.bundle_sha256)
            return _info(row, self._threshold(delegating, model))

    def withdraw(self, model: str, release: int, actor: str) -> None:
        """Forget a staged release. A published one can only be followed by a newer one."""
        with self._repository.lock(), writing(self._engine, _lock(model)) as session:
            row = self._row(session, model, release)
            if row.state != ReleaseState.STAGED:
                raise ReleaseConflict(f"{model} {release} is published; a release is never taken back, only followed")
            session.delete(row)
            self._log(session, actor, "release.withdrawn", model, release)

    def add_signature(self, model: str, release: int, keyid: str, signature: str, actor: str) -> ReleaseInfo:
        """Check one manager's signature over the proposal and keep it.

        Raises: SignatureRejected if the key has no part in ``releases-<model>`` or the signature does not verify.
        """
        delegating = self._delegating(model)
        role = delegating.get_delegated_role(releases_role(model))
        with writing(self._engine, _lock(model)) as session:
            row = self._row(session, model, release)
            if row.state != ReleaseState.STAGED:
                raise ReleaseConflict(f"{model} {release} is published already; it needs no more signatures")
            if keyid not in role.keyids:
                raise SignatureRejected(f"key {keyid[:12]} may not sign releases of {model}")
            key = delegating.get_key(keyid)
            person = person_of(key)
            if person is None:
                raise SignatureRejected(f"key {keyid[:12]} belongs to no person; only people approve releases")
            proposal = _proposal(row)
            try:
                key.verify_signature(Signature(keyid, signature), proposal.signed_bytes)
            except (UnverifiedSignatureError, VerificationError, ValueError) as error:
                raise SignatureRejected(f"the signature by {person} does not verify for {model} {release}") from error
            if all(known.keyid != keyid for known in row.signatures):
                row.signatures.append(
                    SignatureRow(keyid=keyid, person=person, signature=signature, signed_at=self._clock.now())
                )
                session.flush()
                self._log(session, actor, "release.signed", model, release, person=person, keyid=keyid)
            return _info(row, role.threshold)

    def publish(self, model: str, release: int, actor: str) -> ReleaseInfo:
        """Put a release that enough people have signed in front of devices; once published, saying so again is fine.

        Raises: ThresholdNotMet; RepositoryDamaged if a stored file is not what was signed.
        """
        with self._repository.lock():
            self.reconcile()
            delegating = self._delegating(model)
            threshold = self._threshold(delegating, model)
            with reading(self._engine) as session:
                row = self._row(session, model, release)
                if row.state == ReleaseState.PUBLISHED:
                    return _info(row, threshold)
                proposal = _signed_proposal(row)
            self._check_threshold(delegating, model, release, proposal)
            for target in _added(self._repository.role(releases_role(model)).signed, proposal.signed):
                sha256 = target.hashes["sha256"]
                if self._blobs.check(sha256) != target.length:
                    raise RepositoryDamaged(f"{target.path}: the stored file has not the signed size")
                self._repository.write_target(target, self._blobs.path(sha256))
            self._publisher.publish({releases_role(model): proposal})
            return self._mark_published(model, release, actor, threshold)

    def _older(self, model: str) -> tuple[Older, ...]:
        """The published releases that devices may come from, newest first, no more than deltas are made from."""
        if not self._deltas.releases:
            return ()
        with reading(self._engine) as session:
            numbers = session.execute(
                select(ReleaseRow.release)
                .where(ReleaseRow.model == model, ReleaseRow.state == ReleaseState.PUBLISHED)
                .order_by(ReleaseRow.release.desc())
                .limit(self._deltas.releases)
            ).scalars()
            found = [(number, self.manifest(model, number)) for number in numbers]
        return tuple(Older(release=number, manifest=known) for number, known in found if known is not None)

    def reconcile(self) -> None:
        """After a crash between publishing and noting it: the repository is the truth."""
        with reading(self._engine) as session:
            staged = session.execute(select(ReleaseRow).where(ReleaseRow.state == ReleaseState.STAGED)).scalars().all()
            waiting = [(row.model, row.release, _proposal(row).signed) for row in staged]
        models = self.models()
        for model, release, proposal in waiting:
            if model in models and self._repository.role(releases_role(model)).signed == proposal:
                self._mark_published(model, release, "server", self._threshold(self._delegating(model), model))

    def _mark_published(self, model: str, release: int, actor: str, threshold: int) -> ReleaseInfo:
        with writing(self._engine, _lock(model)) as session:
            row = self._row(session, model, release)
            if row.state != ReleaseState.PUBLISHED:  # a server beside this one may have been first
                row.state = ReleaseState.PUBLISHED.value
                row.published_at = self._clock.now()
                people = [signature.person for signature in row.signatures]
                self._log(session, actor, "release.published", model, release, signed_by=people)
            return _info(row, threshold)

    def _check_threshold(self, delegating: Targets, model: str, release: int, proposal: Metadata[Targets]) -> None:
        role = releases_role(model)
        threshold = self._threshold(delegating, model)
        people = signed_by(delegating, role, proposal.signed_bytes, proposal.signatures)
        if len(people) < threshold:
            raise ThresholdNotMet(
                f"{model} {release} is signed by {', '.join(people) or 'nobody'}; {threshold} people must sign: run "
                f"`edgeship-server release sign {model} {release}` on another manager's machine"
            )
        delegating.verify_delegate(role, proposal.signed_bytes, proposal.signatures)
        current = self._repository.role(role).signed
        if proposal.signed.version != current.version + 1 or highest_release(model, current) >= release:
            raise ReleaseConflict(f"{role} has changed since {model} {release} was staged: withdraw and stage it again")
        if proposal.signed.expires <= self._clock.now():
            raise ReleaseConflict(f"the proposal for {model} {release} has expired: withdraw and stage it again")

    def _delegating(self, model: str) -> Targets:
        targets = self._repository.top_level_targets().signed
        if check_model(model) not in delegated_models(targets):
            raise UnknownModel(f"no model {model!r} is delegated here: `edgeship-server keys delegate` adds one")
        return targets

    def _threshold(self, delegating: Targets, model: str) -> int:
        return delegating.get_delegated_role(releases_role(model)).threshold

    def _find(self, session: Session, model: str, release: int) -> ReleaseRow | None:
        return session.execute(
            select(ReleaseRow).where(
                ReleaseRow.model == check_model(model), ReleaseRow.release == check_release(release)
            )
        ).scalar_one_or_none()

    def _row(self, session: Session, model: str, release: int) -> ReleaseRow:
        row = self._find(session, model, release)
        if row is None:
            raise UnknownRelease(f"{model} has no release {release} here; stage its bundle first")
        return row

    def _log(self, session: Session, actor: str, action: str, model: str, release: int, **detail: object) -> None:
        audit.append(
            session, self._clock.now(), actor=actor, action=action, subject=f"{model}/{release}", detail=detail
        )


def _lock(model: str) -> Lock:
    """Who stages, signs or publishes a release of ``model`` holds it."""
    return Lock(f"releases {model}")


def _proposal(row: ReleaseRow) -> Metadata[Targets]:
    return parse_metadata(row.pending, Targets, f"the proposal for {row.model} {row.release}")


def _signed_proposal(row: ReleaseRow) -> Metadata[Targets]:
    metadata = _proposal(row)
    metadata.signatures = {known.keyid: Signature(known.keyid, known.signature) for known in row.signatures}
    return metadata


def _added(current: Targets, proposal: Targets) -> list[TargetFile]:
    return [target for path, target in sorted(proposal.targets.items()) if path not in current.targets]


def _info(row: ReleaseRow, threshold: int) -> ReleaseInfo:
    return ReleaseInfo(
        model=row.model,
        release=row.release,
        version=row.version,
        state=ReleaseState(row.state),
        bundle_sha256=row.bundle_sha256,
        metadata_version=row.metadata_version,
        files=tuple(FileRef(file=file.file, bytes=file.bytes, sha256=file.sha256) for file in row.files),
        signatures=tuple(
            SignatureInfo(person=known.person, keyid=known.keyid, signed_at=known.signed_at) for known in row.signatures
        ),
        threshold=threshold,
        staged_by=row.staged_by,
        staged_at=row.staged_at,
        published_at=row.published_at,
    )
