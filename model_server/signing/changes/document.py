"""The file of a change: the proposed metadata with the signatures so far, and what is published, to verify it against.

It is carried by hand or mail to people who may be offline. Nothing in it is secret, and nothing in it is believed: see
`trusted_state` and `judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Root, Targets
from tuf.api.serialization.json import JSONSerializer

from model_server.errors import ReviewFailed
from model_server.signing.carried import as_text, read_carried, texts, write_carried
from model_server.signing.repository import parse_metadata
from model_server.signing.state import Offline

__all__ = ["Change", "merge", "read_change", "write_change"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``metadata`` by role; ``published`` holds metadata files by name, from the first root on."""

    metadata: Mapping[str, Offline]
    published: Mapping[str, bytes]


def read_change(path: Path) -> Change:
    """Raises: ReviewFailed if it cannot be read or is no change."""
    document = read_carried(path, "change")
    metadata: dict[str, Offline] = {}
    for role, data in texts(path, document, "metadata").items():
        if role == Root.type:
            metadata[role] = parse_metadata(data, Root, f"{role} in {path}")
        else:
            metadata[role] = parse_metadata(data, Targets, f"{role} in {path}")
    return Change(metadata=metadata, published=texts(path, document, "published"))


def write_change(path: Path, change: Change) -> None:
    fields = {
        "metadata": {role: _text(metadata) for role, metadata in change.metadata.items()},
        "published": {name: as_text(name, data) for name, data in change.published.items()},
    }
    write_carried(path, fields)


def merge(changes: Sequence[Change]) -> Change:
    """One change out of copies that different people have signed. Raises: ReviewFailed if they propose other things."""
    first = changes[0]
    for other in changes[1:]:
        if other.metadata.keys() != first.metadata.keys() or any(
            other.metadata[role].signed_bytes != first.metadata[role].signed_bytes for role in first.metadata
        ):
            raise ReviewFailed("the files propose different changes; they must be copies of one")
        for role, metadata in other.metadata.items():
            first.metadata[role].signatures.update(metadata.signatures)
    return first


def _text(metadata: Offline) -> str:
    return metadata.to_bytes(JSONSerializer(compact=True)).decode()
