"""A model's policy on the server: which releases may run at all. Proposed, signed by people, published, as a release
is. The shell around `policy_request`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Targets

from edge_runtime.bundle import PolicyDocument, policy_path, read_policy, write_policy
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import reading, writing
from model_server.errors import ReleaseConflict, RepositoryDamaged, UnknownPolicy
from model_server.releases.policy_request import next_policy_metadata, tightened
from model_server.releases.tables import PolicyRow, ReleaseRow, ReleaseState
from model_server.signing import proposals
from model_server.signing.delegation import delegating, threshold_of
from model_server.signing.proposals import SignatureInfo, role_lock
from model_server.signing.publisher import Publisher
from model_server.signing.repository import to_bytes
from model_server.signing.roles import Expiry, releases_role
from model_server.signing.tables import ProposalRow

__all__ = ["PendingPolicy", "PolicyInfo", "PolicyService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPolicy:
    """A change that waits. ``policy`` is what would hold; ``expires`` when the role would have to be signed again."""

    policy: PolicyDocument
    reason: str
    metadata_version: int
    expires: datetime
    signatures: tuple[SignatureInfo, ...]
    proposed_by: str
    proposed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInfo:
    """``policy`` is what is published and ``expires`` when devices stop believing it; ``threshold`` how many people
    must sign a change."""

    policy: PolicyDocument
    expires: datetime
    threshold: int
    pending: PendingPolicy | None


class PolicyService:
    def __init__(self, engine: Engine, publisher: Publisher, clock: Clock, expiry: Expiry) -> None:
        self._engine = engine
        self._publisher = publisher
        self._repository = publisher.repository
        self._clock = clock
        self._expiry = expiry

    # Looking

    def published(self, model: str) -> PolicyDocument:
        """The policy that devices see. Raises: UnknownModel, RepositoryDamaged."""
        delegating(self._repository, model)
        return self._published(model, self._repository.role(releases_role(model)).signed)

    def allows(self, model: str, release: int) -> bool:
        return self.published(model).allows(release)

    def show(self, model: str) -> PolicyInfo:
        threshold = threshold_of(delegating(self._repository, model), model)
        current = self._repository.role(releases_role(model)).signed
        with reading(self._engine) as session:
            row = self._waiting(session, model)
            return PolicyInfo(
                policy=self._published(model, current),
                expires=current.expires,
                threshold=threshold,
                pending=None if row is None else self._pending(row, current),
            )

    def proposal(self, model: str) -> bytes:
        """The metadata to sign, with the signatures that it has so far. Raises UnknownPolicy if nothing waits."""
        with reading(self._engine) as session:
            return to_bytes(proposals.signed_proposal(self._row(session, model).proposal))

    def document(self, model: str) -> bytes:
        """The policy.json that waits; empty where only the expiry would change."""
        with reading(self._engine) as session:
            return self._row(session, model).document

    # Changing

    def propose(
        self, model: str, *, revoke: Iterable[int] = (), min_release: int | None = None, reason: str, actor: str
    ) -> PolicyInfo:
        """Write the proposal of a tighter policy; one that changes nothing renews the role's expiry.

        Raises: UnknownModel, UnknownRelease, ReleaseConflict for a floor that cannot be, or if another change waits.
        """
        with self._repository.lock(), writing(self._engine, role_lock(model)) as session:
            delegating(self._repository, model)
            waiting = self._waiting(session, model)
            if waiting is not None:
                raise ReleaseConflict(
                    f"a change of the policy of {model} waits for signatures already: publish or withdraw it first "
                    f"(`edgeship-server release show {model} policy`)"
                )
            current = self._repository.role(releases_role(model)).signed
            before = self._published(model, current)
            after = tightened(before, self._releases(session, model), revoke=revoke, min_release=min_release)
            document = b"" if after == before else write_policy(after)
            now = self._clock.now()
            expires = (now + self._expiry.releases).replace(microsecond=0)
            pending = next_policy_metadata(current, model, document or None, expires)
            subject = f"{model}/policy"
            session.add(
                PolicyRow(
                    model=model,
                    document=document,
                    reason=reason,
                    proposal=proposals.new_proposal(releases_role(model), subject, pending, actor, now),
                )
            )
            session.flush()
            detail = {"revoked": list(after.revoked), "min_release": after.min_release, "reason": reason}
            self._log(session, actor, "policy.proposed", model, **detail)
        return self.show(model)

    def withdraw(self, model: str, actor: str) -> None:
        with self._repository.lock(), writing(self._engine, role_lock(model)) as session:
            session.delete(self._row(session, model))
            self._log(session, actor, "policy.withdrawn", model)

    def add_signature(self, model: str, keyid: str, signature: str, actor: str) -> PolicyInfo:
        """Check one manager's signature over the proposal and keep it. Raises: SignatureRejected, UnknownPolicy."""
        targets = delegating(self._repository, model)
        with writing(self._engine, role_lock(model)) as session:
            row = self._row(session, model)
            person = proposals.add_signature(row.proposal, targets, keyid, signature, self._clock.now())
            if person is not None:
                session.flush()
                self._log(session, actor, "policy.signed", model, person=person, keyid=keyid)
        return self.show(model)

    def publish(self, model: str, actor: str) -> PolicyInfo:
        """Put a change that enough people have signed in front of devices.

        Raises: ThresholdNotMet; ReleaseConflict if the role has changed since; UnknownPolicy.
        """
        with self._repository.lock():
            self.reconcile()
            targets = delegating(self._repository, model)
            current = self._repository.role(releases_role(model)).signed
            with reading(self._engine) as session:
                row = self._row(session, model)
                metadata = proposals.check_ready(row.proposal, targets, current, self._clock.now())
                document = row.document
            target = metadata.signed.targets.get(policy_path(model))
            if document and target is not None:
                target.verify_length_and_hashes(document)
                self._repository.write_target(target, document)
            self._publisher.publish({releases_role(model): metadata})
            self._mark_published(model, actor)
        return self.show(model)

    def reconcile(self) -> None:
        """After a crash between publishing and noting it: the repository is the truth."""
        with reading(self._engine) as session:
            rows = session.execute(
                select(PolicyRow).join(ProposalRow).where(ProposalRow.published_at.is_(None))
            ).scalars()
            waiting = [(row.model, proposals.proposal(row.proposal).signed) for row in rows]
        for model, pending in waiting:
            if self._repository.role(releases_role(model)).signed == pending:
                self._mark_published(model, "server")

    def _mark_published(self, model: str, actor: str) -> None:
        with writing(self._engine, role_lock(model)) as session:
            row = self._row(session, model)
            row.proposal.published_at = self._clock.now()
            people = [known.person for known in row.proposal.signatures]
            self._log(session, actor, "policy.published", model, signed_by=people, reason=row.reason)

    def _published(self, model: str, current: Targets) -> PolicyDocument:
        target = current.targets.get(policy_path(model))
        if target is None:
            return PolicyDocument(model=model)
        try:
            data = self._repository.target(target)
            target.verify_length_and_hashes(data)
        except LengthOrHashMismatchError as error:
            raise RepositoryDamaged(f"the published {target.path} was changed: {error}") from error
        return read_policy(data)

    def _pending(self, row: PolicyRow, current: Targets) -> PendingPolicy:
        return PendingPolicy(
            policy=read_policy(row.document) if row.document else self._published(row.model, current),
            reason=row.reason,
            metadata_version=row.proposal.version,
            expires=proposals.proposal(row.proposal).signed.expires,
            signatures=proposals.signatures(row.proposal),
            proposed_by=row.proposal.proposed_by,
            proposed_at=row.proposal.proposed_at,
        )

    def _releases(self, session: Session, model: str) -> list[int]:
        return list(
            session.execute(
                select(ReleaseRow.release).where(ReleaseRow.model == model, ReleaseRow.state == ReleaseState.PUBLISHED)
            ).scalars()
        )

    def _waiting(self, session: Session, model: str) -> PolicyRow | None:
        return session.execute(
            select(PolicyRow).join(ProposalRow).where(PolicyRow.model == model, ProposalRow.published_at.is_(None))
        ).scalar_one_or_none()

    def _row(self, session: Session, model: str) -> PolicyRow:
        delegating(self._repository, model)
        row = self._waiting(session, model)
        if row is None:
            raise UnknownPolicy(f"no change of the policy of {model} waits for signatures")
        return row

    def _log(self, session: Session, actor: str, action: str, model: str, **detail: object) -> None:
        audit.append(session, self._clock.now(), actor=actor, action=action, subject=f"{model}/policy", detail=detail)
