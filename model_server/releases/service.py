"""The life of a release on the server: staged, signed, published. The shell around `signing_request` and `roles`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import TargetFile, Targets

from edge_runtime.bundle import (
    MANIFEST_FILE,
    RELEASE_FILE,
    Bundle,
    FileRef,
    Manifest,
    check_model,
    check_release,
    read_manifest,
    read_release,
)
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import reading, writing
from model_server.errors import (
    ReadinessRefused,
    ReleaseConflict,
    ReleaseNotNewer,
    RepositoryDamaged,
    UnknownRelease,
)
from model_server.releases.blobs import Blobs
from model_server.releases.delta.offering import DeltaLimits, Older
from model_server.releases.exporting import export_release
from model_server.releases.readiness.gate import Gate
from model_server.releases.readiness.report import Report
from model_server.releases.signing_request import check_newer, next_metadata
from model_server.releases.staging import open_upload, stage_files
from model_server.releases.tables import FileRow, ReleaseRow, ReleaseState
from model_server.releases.watch import UNWATCHED, Watch
from model_server.signing import proposals
from model_server.signing.delegation import delegating, threshold_of
from model_server.signing.proposals import SignatureInfo, role_lock
from model_server.signing.publisher import Publisher
from model_server.signing.repository import to_bytes
from model_server.signing.roles import Expiry, delegated_models, releases_role

__all__ = ["ReleaseInfo", "ReleaseService"]


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
    readiness: Report | None
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
        gate: Gate | None = None,
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._repository = publisher.repository
        self._blobs = blobs
        self._clock = clock
        self._expiry = expiry
        self._deltas = deltas or DeltaLimits()
        self._gate = gate or Gate()
        self._models: tuple[str, tuple[str, ...]] | None = None
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
        threshold = threshold_of(delegating(self._repository, model), model)
        with reading(self._engine) as session:
            rows = session.execute(
                select(ReleaseRow).where(ReleaseRow.model == model).order_by(ReleaseRow.release)
            ).scalars()
            return tuple(_info(row, threshold) for row in rows)

    def show(self, model: str, release: int) -> ReleaseInfo:
        threshold = threshold_of(delegating(self._repository, model), model)
        with reading(self._engine) as session:
            return _info(self._row(session, model, release), threshold)

    def is_published(self, model: str, release: int) -> bool:
        with reading(self._engine) as session:
            row = self._find(session, model, release)
            return row is not None and row.state == ReleaseState.PUBLISHED

    def check_published(self, model: str, release: int) -> None:
        """Raises: UnknownModel, UnknownRelease unless the release is published."""
        delegating(self._repository, model)
        if not self.is_published(model, release):
            raise UnknownRelease(f"{model} {release} is not published, so it cannot be rolled out")

    def ceiling(self, model: str, release: int) -> tuple[tuple[tuple[int, int], ...], datetime]:
        """The signed ceiling of a release, and when it was published. Raises: UnknownRelease, RepositoryDamaged."""
        steps = read_release(self.read_file(model, release, RELEASE_FILE)).ceiling
        with reading(self._engine) as session:
            return steps, self._row(session, model, release).proposal.published_at or self._clock.now()

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
            return to_bytes(proposals.signed_proposal(self._row(session, model, release).proposal))

    def export(self, model: str, release: int, out: Path) -> str:
        """Write a published release as a bundle that devices install without a network; its sha256.

        Raises: UnknownModel; UnknownRelease unless it is published; RepositoryDamaged.
        """
        delegating(self._repository, model)
        if not self.is_published(model, release):
            raise UnknownRelease(f"{model} {release} is not published; only what people have signed can be exported")
        return export_release(self._repository, self._blobs, model, release, out)

    # Changing

    def stage(
        self,
        path: Path,
        ceiling: tuple[tuple[int, int], ...],
        actor: str,
        *,
        allow_interface_change: bool = False,
        watch: Watch = UNWATCHED,
        note: Callable[[Session], None] | None = None,
    ) -> ReleaseInfo:
        """Check the bundle at ``path``, keep its files and write the proposal. ``note`` is called in the transaction
        that does, and what it raises ends it.

        Raises: an error of `edge_runtime.bundle`; UnknownModel; ReleaseNotNewer; ReleaseConflict if another release of
        the model waits for signatures; ReadinessRefused; ReadinessBroken.
        """
        watch.at("checking")
        bundle = open_upload(path)
        model, release = bundle.manifest.model, bundle.manifest.release
        watch.about(model, release)
        with reading(self._engine) as session:
            self._check_free(session, model, release)  # before minutes are spent on it
        ready = self._judge(bundle, path, actor, allow_interface_change, watch)
        with reading(self._engine) as session:
            audit_head = audit.head(session)
        staged = stage_files(bundle, self._blobs, ceiling, audit_head, self._older(model), self._deltas, watch)
        watch.at("proposing")
        with self._repository.lock(), writing(self._engine, role_lock(model)) as session:
            targets = self._check_free(session, model, release)
            current = self._repository.role(releases_role(model)).signed
            now = self._clock.now()
            expires = (now + self._expiry.releases).replace(microsecond=0)
            pending = next_metadata(model, release, current, staged.files, expires)
            row = ReleaseRow(
                model=model,
                release=release,
                version=staged.manifest.version,
                state=ReleaseState.STAGED.value,
                bundle_sha256=staged.bundle_sha256,
                readiness=ready.to_json(),
                proposal=proposals.new_proposal(releases_role(model), f"{model}/{release}", pending, actor, now),
                files=[FileRow(file=ref.file, bytes=ref.bytes, sha256=ref.sha256) for ref in staged.files.values()],
            )
            session.add(row)
            session.flush()
            if note is not None:
                note(session)
            judged = {"readiness": ready.to_dict(), "allow_interface_change": allow_interface_change}
            self._log(session, actor, "release.staged", model, release, bundle_sha256=staged.bundle_sha256, **judged)
            return _info(row, threshold_of(targets, model))

    def _judge(self, bundle: Bundle, path: Path, actor: str, allow_interface_change: bool, watch: Watch) -> Report:
        """What the gate finds; a refusal is in the audit log too."""
        model, release = bundle.manifest.model, bundle.manifest.release
        with reading(self._engine) as session:
            newest = session.scalar(
                select(func.max(ReleaseRow.release)).where(
                    ReleaseRow.model == model, ReleaseRow.state == ReleaseState.PUBLISHED
                )
            )
        before = None if newest is None else self.manifest(model, newest)
        try:
            return self._gate.judge(
                bundle, path, before, actor, allow_interface_change=allow_interface_change, watch=watch
            )
        except ReadinessRefused as refused:
            with writing(self._engine, role_lock(model)) as session:
                reason = str(refused)
                self._log(session, actor, "release.refused", model, release, bundle_sha256=bundle.sha256, reason=reason)
            raise

    def _check_free(self, session: Session, model: str, release: int) -> Targets:
        """The targets that delegate ``model``. Raises: UnknownModel; ReleaseConflict or ReleaseNotNewer if the release
        cannot be proposed now."""
        targets = delegating(self._repository, model)
        waiting = session.execute(
            select(ReleaseRow).where(ReleaseRow.model == model, ReleaseRow.state == ReleaseState.STAGED)
        ).scalar_one_or_none()
        if waiting is not None:
            raise ReleaseConflict(
                f"{model} {waiting.release} is staged and waits for signatures: publish or withdraw it first"
            )
        if self._find(session, model, release) is not None:
            raise ReleaseNotNewer(f"{model} {release} is published already: build it under a higher number")
        check_newer(model, release, self._repository.role(releases_role(model)).signed)
        return targets

    def withdraw(self, model: str, release: int, actor: str) -> None:
        """Forget a staged release. A published one can only be followed by a newer one."""
        with self._repository.lock(), writing(self._engine, role_lock(model)) as session:
            row = self._row(session, model, release)
            if row.state != ReleaseState.STAGED:
                raise ReleaseConflict(f"{model} {release} is published; a release is never taken back, only followed")
            session.delete(row)
            self._log(session, actor, "release.withdrawn", model, release)

    def add_signature(self, model: str, release: int, keyid: str, signature: str, actor: str) -> ReleaseInfo:
        """Check one manager's signature over the proposal and keep it.

        Raises: SignatureRejected if the key has no part in ``releases-<model>`` or the signature does not verify.
        """
        targets = delegating(self._repository, model)
        with writing(self._engine, role_lock(model)) as session:
            row = self._row(session, model, release)
            if row.state != ReleaseState.STAGED:
                raise ReleaseConflict(f"{model} {release} is published already; it needs no more signatures")
            person = proposals.add_signature(row.proposal, targets, keyid, signature, self._clock.now())
            if person is not None:
                session.flush()
                self._log(session, actor, "release.signed", model, release, person=person, keyid=keyid)
            return _info(row, threshold_of(targets, model))

    def publish(self, model: str, release: int, actor: str) -> ReleaseInfo:
        """Put a release that enough people have signed in front of devices; once published, saying so again is fine.

        Raises: ThresholdNotMet; RepositoryDamaged if a stored file is not what was signed.
        """
        with self._repository.lock():
            self.reconcile()
            targets = delegating(self._repository, model)
            threshold = threshold_of(targets, model)
            with reading(self._engine) as session:
                row = self._row(session, model, release)
                if row.state == ReleaseState.PUBLISHED:
                    return _info(row, threshold)
                current = self._repository.role(releases_role(model)).signed
                proposal = proposals.check_ready(row.proposal, targets, current, self._clock.now())
            for target in _added(current, proposal.signed):
                sha256 = target.hashes["sha256"]
                if self._blobs.check(sha256) != target.length:
                    raise RepositoryDamaged(f"{target.path}: the stored file has not the signed size")
                self._repository.copy_target(target, self._blobs.name(sha256))
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
            waiting = [(row.model, row.release, proposals.proposal(row.proposal).signed) for row in staged]
        models = self.models()
        for model, release, proposal in waiting:
            if model in models and self._repository.role(releases_role(model)).signed == proposal:
                self._mark_published(model, release, "server", threshold_of(delegating(self._repository, model), model))

    def _mark_published(self, model: str, release: int, actor: str, threshold: int) -> ReleaseInfo:
        with writing(self._engine, role_lock(model)) as session:
            row = self._row(session, model, release)
            if row.state != ReleaseState.PUBLISHED:  # a server beside this one may have been first
                row.state = ReleaseState.PUBLISHED.value
                row.proposal.published_at = self._clock.now()
                people = [signature.person for signature in row.proposal.signatures]
                self._log(session, actor, "release.published", model, release, signed_by=people)
            return _info(row, threshold)

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


def _added(current: Targets, proposal: Targets) -> list[TargetFile]:
    return [target for path, target in sorted(proposal.targets.items()) if path not in current.targets]


def _info(row: ReleaseRow, threshold: int) -> ReleaseInfo:
    return ReleaseInfo(
        model=row.model,
        release=row.release,
        version=row.version,
        state=ReleaseState(row.state),
        bundle_sha256=row.bundle_sha256,
        metadata_version=row.proposal.version,
        files=tuple(FileRef(file=file.file, bytes=file.bytes, sha256=file.sha256) for file in row.files),
        signatures=proposals.signatures(row.proposal),
        threshold=threshold,
        readiness=None if row.readiness is None else Report.from_json(row.readiness),
        staged_by=row.proposal.proposed_by,
        staged_at=row.proposal.proposed_at,
        published_at=row.proposal.published_at,
    )
