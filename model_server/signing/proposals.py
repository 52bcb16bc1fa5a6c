"""Proposals: the next metadata of an offline role, from when the server writes it until enough people have signed.

Inside the caller's transaction: rows change here, and nothing is published here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Targets

from model_server.db.base import Lock
from model_server.errors import ReleaseConflict, SignatureRejected, ThresholdNotMet
from model_server.signing.repository import parse_metadata, to_bytes
from model_server.signing.roles import person_of, signed_by
from model_server.signing.tables import ProposalRow, SignatureRow

__all__ = [
    "SignatureInfo",
    "add_signature",
    "check_ready",
    "new_proposal",
    "proposal",
    "role_lock",
    "signatures",
    "signed_proposal",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureInfo:
    person: str
    keyid: str
    signed_at: datetime


def role_lock(model: str) -> Lock:
    """Who changes a proposal of ``releases-<model>`` holds it."""
    return Lock(f"releases {model}")


def new_proposal(role: str, subject: str, pending: Targets, actor: str, now: datetime) -> ProposalRow:
    """The row of a proposal, not yet in a session."""
    return ProposalRow(
        role=role,
        subject=subject,
        version=pending.version,
        pending=to_bytes(Metadata(pending)),
        proposed_by=actor,
        proposed_at=now,
    )


def proposal(row: ProposalRow) -> Metadata[Targets]:
    """The metadata without signatures. Raises RepositoryDamaged."""
    return parse_metadata(row.pending, Targets, f"the proposal for {row.subject}")


def signed_proposal(row: ProposalRow) -> Metadata[Targets]:
    """The metadata with the signatures that it has so far."""
    metadata = proposal(row)
    metadata.signatures = {known.keyid: Signature(known.keyid, known.signature) for known in row.signatures}
    return metadata


def signatures(row: ProposalRow) -> tuple[SignatureInfo, ...]:
    return tuple(
        SignatureInfo(person=known.person, keyid=known.keyid, signed_at=known.signed_at) for known in row.signatures
    )


def add_signature(row: ProposalRow, delegating: Targets, keyid: str, signature: str, now: datetime) -> str | None:
    """Check one person's signature and keep it. Returns the person; None if it was there already.

    Raises: SignatureRejected if the key has no part in the role or the signature does not verify.
    """
    if keyid not in delegating.get_delegated_role(row.role).keyids:
        raise SignatureRejected(f"key {keyid[:12]} may not sign {row.role}")
    key = delegating.get_key(keyid)
    person = person_of(key)
    if person is None:
        raise SignatureRejected(f"key {keyid[:12]} belongs to no person; only people approve releases")
    try:
        key.verify_signature(Signature(keyid, signature), proposal(row).signed_bytes)
    except (UnverifiedSignatureError, VerificationError, ValueError) as error:
        raise SignatureRejected(f"the signature by {person} does not verify for {row.subject}") from error
    if any(known.keyid == keyid for known in row.signatures):
        return None
    row.signatures.append(SignatureRow(keyid=keyid, person=person, signature=signature, signed_at=now))
    return person


def check_ready(row: ProposalRow, delegating: Targets, current: Targets, now: datetime) -> Metadata[Targets]:
    """The metadata to publish: signed by enough people, still the next version, not expired.

    Raises: ThresholdNotMet, ReleaseConflict.
    """
    metadata, threshold = signed_proposal(row), delegating.get_delegated_role(row.role).threshold
    people = signed_by(delegating, row.role, metadata.signed_bytes, metadata.signatures)
    if len(people) < threshold:
        words = row.subject.replace("/", " ")
        raise ThresholdNotMet(
            f"{words} is signed by {', '.join(people) or 'nobody'}; {threshold} people must sign: run "
            f"`edgeship-server release sign {words}` on another manager's machine"
        )
    delegating.verify_delegate(row.role, metadata.signed_bytes, metadata.signatures)
    if metadata.signed.version != current.version + 1:
        raise ReleaseConflict(
            f"{row.role} has changed since {row.subject} was proposed: withdraw it and propose it again"
        )
    if metadata.signed.expires <= now:
        raise ReleaseConflict(f"the proposal for {row.subject} has expired: withdraw it and propose it again")
    return metadata
