"""The metadata that a stranger verifies a model's releases by, from the first root on: which files, and those of a
repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuf.api.metadata import Root, Snapshot, Targets

from model_server.signing.repository import Repository
from model_server.signing.roles import releases_role

__all__ = ["TIMESTAMP", "chain_names", "published_files", "root_name", "snapshot_name"]

TIMESTAMP = "timestamp.json"


def root_name(version: int) -> str:
    return f"{version}.{Root.type}.json"


def snapshot_name(version: int) -> str:
    return f"{version}.{Snapshot.type}.json"


def chain_names(versions: Mapping[str, int], models: Iterable[str]) -> list[str]:
    """The targets roles of ``models`` that a snapshot lists, by file name: targets, then each ``releases-<model>``."""
    listed = ((f"{role}.json", role) for role in (Targets.type, *map(releases_role, models)))
    return [f"{versions[name]}.{role}.json" for name, role in listed if name in versions]


def published_files(repository: Repository, models: Iterable[str]) -> dict[str, bytes]:
    """Every root, and the present metadata down to ``releases-<model>`` of ``models``, by file name."""
    names = [root_name(version) for version in range(1, repository.root_version() + 1)]
    names.append(snapshot_name(repository.timestamp().signed.snapshot_meta.version))
    names += chain_names(repository.versions(), models)
    return {TIMESTAMP: repository.timestamp_bytes(), **{name: repository.file(name) for name in names}}
