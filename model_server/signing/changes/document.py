"""The file of a change: the proposed metadata with the signatures so far, and what is published, to verify it against.

It is carried by hand or mail to people who may be offline. Nothing in it is secret, and nothing in it is believed: see
`trusted_state` and `judge`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Root, Snapshot, Targets
from tuf.api.serialization.json import JSONSerializer

from model_server.errors import ReviewFailed
from model_server.files import write_atomic
from model_server.signing.repository import Repository, parse_metadata
from model_server.signing.roles import releases_role
from model_server.signing.state import Offline

__all__ = ["Change", "merge", "published_files", "read_change", "write_change"]

FORMAT = 1
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``metadata`` by role; ``published`` holds metadata files by name, from the first root on."""

    metadata: Mapping[str, Offline]
    published: Mapping[str, bytes]


def read_change(path: Path) -> Change:
    """Raises: ReviewFailed if it cannot be read or is no change."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReviewFailed(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ReviewFailed(f"{path} has more than {MAX_BYTES} bytes; that is no change")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReviewFailed(f"{path} is no change: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ReviewFailed(f"{path} is no change in format {FORMAT}")
    metadata: dict[str, Offline] = {}
    for role, text in _texts(path, document, "metadata").items():
        if role == Root.type:
            metadata[role] = parse_metadata(text.encode(), Root, f"{role} in {path}")
        else:
            metadata[role] = parse_metadata(text.encode(), Targets, f"{role} in {path}")
    published = {name: text.encode() for name, text in _texts(path, document, "published").items()}
    return Change(metadata=metadata, published=published)


def write_change(path: Path, change: Change) -> None:
    document = {
        "format": FORMAT,
        "metadata": {role: _text(metadata) for role, metadata in change.metadata.items()},
        "published": {name: data.decode() for name, data in change.published.items()},
    }
    write_atomic(path, json.dumps(document, indent=1).encode() + b"\n")


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


def published_files(repository: Repository, models: Sequence[str]) -> dict[str, bytes]:
    """Every root, and the present metadata down to ``releases-<model>`` of ``models``, by file name."""
    timestamp, versions = repository.timestamp(), repository.versions()
    names = [f"{version}.{Root.type}.json" for version in range(1, repository.root_version() + 1)]
    names.append(f"{timestamp.signed.snapshot_meta.version}.{Snapshot.type}.json")
    for role in (Targets.type, *map(releases_role, models)):
        if f"{role}.json" in versions:
            names.append(f"{versions[f'{role}.json']}.{role}.json")
    return {"timestamp.json": repository.timestamp_bytes(), **{name: repository.file(name) for name in names}}


def _text(metadata: Offline) -> str:
    return metadata.to_bytes(JSONSerializer(compact=True)).decode()


def _texts(path: Path, document: dict[str, Any], key: str) -> dict[str, str]:
    values = document.get(key)
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ReviewFailed(f"{path}: {key} must hold texts by name")
    return values
