"""The repository on disk: what devices fetch, as plain static files.

``metadata/`` holds versioned files (``3.releases-exercise.json``) and ``timestamp.json``; ``targets/`` holds targets
under hash-prefixed names. A file appears whole or not at all (temporary file, fsync, rename), and ``timestamp.json``
goes last: until it is replaced, clients see the state before.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from model_server.errors import RepositoryDamaged

__all__ = ["Repository", "parse_metadata", "to_bytes", "write_atomic"]

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


def to_bytes(metadata: Metadata[S]) -> bytes:
    """The compact JSON that is published."""
    return metadata.to_bytes(JSONSerializer(compact=True))


def parse_metadata(data: bytes, kind: type[S], what: str) -> Metadata[S]:
    """Parse metadata of one kind; ``what`` names it in the error.

    Raises: RepositoryDamaged.
    """
    try:
        metadata = Metadata[S].from_bytes(data)
    except DeserializationError as error:
        raise RepositoryDamaged(f"{what} is not TUF metadata") from error
    if not isinstance(metadata.signed, kind):
        raise RepositoryDamaged(f"{what} is {metadata.signed.type} metadata, not {kind.type}")
    return metadata


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a power cut, finds the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


class Repository:
    """The repository's files. `lock` is held by whoever changes them."""

    def __init__(self, root: Path) -> None:
        self.metadata = root / "metadata"
        self.targets = root / "targets"
        self._lock_file = root / ".publisher.lock"
        self._lock = threading.RLock()
        self._depth = 0

    def create(self) -> None:
        self.metadata.mkdir(parents=True)
        self.targets.mkdir(parents=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One publisher at a time: threads of this process by a mutex, other processes on this machine (`keys
        delegate` beside `serve`) by a file lock. Replicas on several machines need the publisher lease, which this
        version does not have: run one server."""
        with self._lock:
            self._depth += 1
            try:
                if self._depth > 1:
                    yield
                    return
                with self._lock_file.open("ab") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    yield
            finally:
                self._depth -= 1

    def state(self) -> tuple[int, int]:
        """Something that is another after every publication; costs one ``stat``."""
        try:
            status = (self.metadata / "timestamp.json").stat()
        except OSError as error:
            raise RepositoryDamaged(f"{self.metadata} holds no timestamp.json: {error.strerror}") from error
        return status.st_ino, status.st_mtime_ns

    def timestamp(self) -> Metadata[Timestamp]:
        return self._read("timestamp.json", Timestamp)

    def snapshot(self) -> Metadata[Snapshot]:
        return self._read(f"{self.timestamp().signed.snapshot_meta.version}.snapshot.json", Snapshot)

    def top_level_targets(self) -> Metadata[Targets]:
        return self.role(Targets.type)

    def role(self, role: str) -> Metadata[Targets]:
        """The published metadata of ``targets`` or of a delegated role."""
        return parse_metadata(self.role_bytes(role), Targets, role)

    def role_bytes(self, role: str) -> bytes:
        meta = self.snapshot().signed.meta.get(f"{role}.json")
        if meta is None:
            raise RepositoryDamaged(f"the snapshot does not list {role}")
        return self._bytes(f"{meta.version}.{role}.json")

    def root(self) -> Metadata[Root]:
        """The newest root."""
        versions = [int(path.name.split(".", 1)[0]) for path in self.metadata.glob("*.root.json")]
        if not versions:
            raise RepositoryDamaged(f"{self.metadata} holds no root metadata")
        return self._read(f"{max(versions)}.root.json", Root)

    def root_versions(self) -> list[bytes]:
        """Every root that was ever published, as its bytes."""
        return [path.read_bytes() for path in self.metadata.glob("*.root.json")]

    def write_role(self, role: str, version: int, data: bytes) -> None:
        write_atomic(self.metadata / f"{version}.{role}.json", data)

    def write_timestamp(self, data: bytes) -> None:
        write_atomic(self.metadata / "timestamp.json", data)

    def target_file(self, target: TargetFile) -> Path:
        """Where a target's bytes lie, under the first of its hash-prefixed names."""
        return self.targets / target.get_prefixed_paths()[0]

    def write_target(self, target: TargetFile, source: Path | bytes) -> None:
        """Put a target in place: from bytes, or from a file on the same file system, without a copy."""
        path = self.target_file(target)
        if path.exists():
            return  # the name holds the digest
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            write_atomic(path, source)
            return
        try:
            path.hardlink_to(source)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links, or another one
            write_atomic(path, source.read_bytes())
        else:
            _sync_folder(path.parent)

    def _read(self, name: str, kind: type[S]) -> Metadata[S]:
        return parse_metadata(self._bytes(name), kind, name)

    def _bytes(self, name: str) -> bytes:
        try:
            return (self.metadata / name).read_bytes()
        except OSError as error:
            raise RepositoryDamaged(f"the repository's {name} cannot be read: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
