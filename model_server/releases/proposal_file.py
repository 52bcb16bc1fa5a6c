"""What a signer's machine is shown: a proposal for a release or a policy, with the published metadata that it is judged
against; and the file in which it is carried to a machine without a network. Nothing in it is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Targets

from edge_runtime.bundle import InvalidName, check_model, check_release
from model_server.errors import ReviewFailed
from model_server.signing.carried import as_bytes, as_text, read_carried, texts, write_carried
from model_server.signing.repository import parse_metadata, to_bytes

__all__ = ["Proposal", "merge_proposals", "read_proposal", "write_proposal"]

PROPOSED, BEFORE = "proposed", "before"
_POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """``metadata`` is the next ``releases-<model>``, with the signatures so far. ``release`` is None for a policy.

    ``document`` is what the source says that the proposed release.json or policy.json is, None where only the expiry
    changes; ``before`` the same of the published policy.json. ``published`` are metadata files by name, from the first
    root on. ``source`` names where it all comes from.
    """

    source: str
    model: str
    release: int | None
    metadata: Metadata[Targets]
    document: bytes | None
    before: bytes | None
    published: Mapping[str, bytes]

    @property
    def subject(self) -> str:
        return f"the policy of {self.model}" if self.release is None else f"{self.model} {self.release}"


def read_proposal(path: Path) -> Proposal:
    """Raises: ReviewFailed if it cannot be read or is no proposal, RepositoryDamaged if it holds no metadata."""
    carried = read_carried(path, "proposal")
    documents = texts(path, carried, "documents")
    number: Any = carried.get("release")
    try:
        release = None if number == _POLICY else check_release(number)
        model = check_model(as_bytes(f"{path}: model", carried.get("model")).decode())
    except InvalidName as error:
        raise ReviewFailed(f"{path} is no proposal: {error}") from error
    return Proposal(
        source=str(path),
        model=model,
        release=release,
        metadata=parse_metadata(as_bytes(f"{path}: metadata", carried.get("metadata")), Targets, f"{path}: metadata"),
        document=documents.get(PROPOSED),
        before=documents.get(BEFORE),
        published=texts(path, carried, "published"),
    )


def write_proposal(path: Path, proposal: Proposal) -> None:
    """Raises: ReviewFailed if what is published is no text, or too much."""
    documents = {PROPOSED: proposal.document, BEFORE: proposal.before}
    fields = {
        "model": proposal.model,
        "release": _POLICY if proposal.release is None else proposal.release,
        "metadata": to_bytes(proposal.metadata).decode(),
        "documents": {name: as_text(name, data) for name, data in documents.items() if data is not None},
        "published": {name: as_text(name, data) for name, data in proposal.published.items()},
    }
    write_carried(path, fields)


def merge_proposals(proposals: Sequence[Proposal]) -> Proposal:
    """One proposal out of copies that different people have signed. Raises: ReviewFailed unless they are copies."""
    first = proposals[0]
    for other in proposals[1:]:
        if (other.subject, other.metadata.signed_bytes) != (first.subject, first.metadata.signed_bytes):
            raise ReviewFailed(f"{first.source} and {other.source} hold different proposals; give copies of one")
        first.metadata.signatures.update(other.metadata.signatures)
    return first
