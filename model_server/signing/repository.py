"""The repository as it is stored: what devices fetch, as plain static files.

``metadata/`` holds versioned files (``3.releases-exercise.json``) and ``timestamp.json``; ``targets/`` holds targets
under hash-prefixed names. ``timestamp.json`` goes last: until it is replaced, clients see the state before. No version
that the server signs by itself is ever written twice, even by a server that has lost its lease and does not know:

- a file of such a version is only created, never replaced, and who finds the name taken signs the version after it;
- ``timestamp.json`` has no version in its name, so each version is claimed first, by a file in ``claims/``, and it is
  replaced only while it is the one that was there when the lock was taken.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from model_server.errors import NotStored, RepositoryDamaged
from model_server.signing.lease import Check, Leasing
from model_server.storage.protocol import Storage

__all__ = ["METADATA", "TARGETS", "Repository", "parse_metadata", "to_bytes"]

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)

METADATA = "repository/metadata/"
TARGETS = "repository/targets/"
_CLAIMS = "repository/claims/"
_TIMESTAMP = "timestamp.json"
_CLAIMS_KEPT = 64
_REMEMBERED_BYTES = 32 << 20


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


class Repository:
    """The repository's files in ``storage``. `lock` is held by whoever changes them."""

    def __init__(self, storage: Storage, lease: Leasing) -> None:
        self.storage = storage
        self._lease = lease
        self._lock = threading.RLock()
        self._depth = 0
        self._check: Check | None = None
        self._follows: str | None = None  # the state that this publisher found, or made
        self._root_version = 1
        self._listed: tuple[str, Mapping[str, int]] | None = None
        # Of files on this machine, what lies there is what counts; asking a store again and again would take seconds.
        self._remembered = _Remembered(_REMEMBERED_BYTES if storage.path("") is None else 0)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One publisher at a time: threads of this process by a mutex, other processes by the lease."""
        with self._lock:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            with self._lease() as check:
                follows = self._present(_TIMESTAMP)[1]
                self._depth, self._check, self._follows = 1, check, follows
                try:
                    yield
                finally:
                    self._depth, self._check, self._follows = 0, None, None

    def state(self) -> str:
        """Something that is another after every publication, and cheap to ask for. Where several servers share an
        object store, what another one has published may show a second late."""
        try:
            return self.storage.version(METADATA + _TIMESTAMP)
        except NotStored as error:
            raise RepositoryDamaged(f"the repository holds no {_TIMESTAMP}") from error

    # Reading

    def timestamp(self) -> Metadata[Timestamp]:
        return parse_metadata(self.timestamp_bytes(), Timestamp, _TIMESTAMP)

    def timestamp_bytes(self) -> bytes:
        return self._present(_TIMESTAMP)[0]

    def snapshot(self) -> Metadata[Snapshot]:
        return self._snapshot(self.timestamp_bytes())

    def top_level_targets(self) -> Metadata[Targets]:
        return self.role(Targets.type)

    def role(self, role: str) -> Metadata[Targets]:
        """The published metadata of ``targets`` or of a delegated role."""
        return parse_metadata(self.role_bytes(role), Targets, role)

    def role_bytes(self, role: str) -> bytes:
        version = self.versions().get(f"{role}.json")
        if version is None:
            raise RepositoryDamaged(f"the snapshot does not list {role}")
        return self.file(f"{version}.{role}.json")

    def versions(self) -> Mapping[str, int]:
        """What the snapshot lists: versions by file name."""
        data, token = self._present(_TIMESTAMP)
        if self._listed is None or self._listed[0] != token:
            meta = self._snapshot(data).signed.meta
            self._listed = (token, {name: each.version for name, each in meta.items()})
        return self._listed[1]

    def root(self) -> Metadata[Root]:
        """The newest root."""
        return parse_metadata(self.file(f"{self.root_version()}.root.json"), Root, "the root metadata")

    def root_version(self) -> int:
        """Roots are never removed, and numbered without a gap."""
        while self.storage.size(f"{METADATA}{self._root_version + 1}.root.json") is not None:
            self._root_version += 1
        return self._root_version

    def root_versions(self) -> list[bytes]:
        """Every root that was ever published, as its bytes, from the first one on."""
        return [self.file(f"{version}.root.json") for version in range(1, self.root_version() + 1)]

    def file(self, name: str) -> bytes:
        """A file of versioned metadata. Raises: RepositoryDamaged."""
        known = self._remembered.get(name)
        if known is None:
            known = self._present(name)[0]
            self._remembered.put(name, known)
        return known

    def target(self, target: TargetFile) -> bytes:
        """The bytes of a small target. Raises: RepositoryDamaged if they are gone."""
        try:
            return self.storage.read(self.target_name(target)).data
        except NotStored as error:
            raise RepositoryDamaged(f"the published {target.path} is gone") from error

    def target_name(self, target: TargetFile) -> str:
        """The storage's name of a target: the first of its hash-prefixed names."""
        return TARGETS + target.get_prefixed_paths()[0]

    # Writing

    def write_role(self, role: str, version: int, data: bytes) -> None:
        """Put in place what people have signed, which only they can sign: root, targets or releases. What an earlier
        publication left there when it was cut off, nothing lists."""
        self._still_held()
        name = f"{version}.{role}.json"
        self._remembered.forget(name)
        self.storage.replace(METADATA + name, data)

    def create_role(self, role: str, version: int, data: bytes) -> bool:
        """Put in place what the server has signed. False if this version is taken: sign the one after it."""
        self._still_held()
        return self.storage.create(f"{METADATA}{version}.{role}.json", lambda out: out.write(data))

    def claim_timestamp(self, version: int, data: bytes) -> bool:
        """Claim a version of the timestamp for these bytes. False if it is taken: sign the one after it."""
        self._still_held()
        return self.storage.create(_claim(version), lambda out: out.write(data))

    def write_timestamp(self, version: int, data: bytes) -> None:
        """Show devices the new state. Raises: LeaseLost if it was made from another one than the present."""
        self._still_held()
        self._follows = self.storage.replace(METADATA + _TIMESTAMP, data, self._follows)
        if version > _CLAIMS_KEPT:
            self.storage.remove(_claim(version - _CLAIMS_KEPT))

    def write_target(self, target: TargetFile, data: bytes) -> None:
        """Put a small target in place."""
        self.storage.create(self.target_name(target), lambda out: out.write(data))  # the name holds the digest

    def copy_target(self, target: TargetFile, name: str) -> None:
        """Put a target in place that is stored under ``name`` already."""
        self.storage.copy(name, self.target_name(target))

    def _still_held(self) -> None:
        if self._check is not None:
            self._check()

    def _snapshot(self, timestamp: bytes) -> Metadata[Snapshot]:
        signed = parse_metadata(timestamp, Timestamp, _TIMESTAMP).signed
        name = f"{signed.snapshot_meta.version}.snapshot.json"
        return parse_metadata(self.file(name), Snapshot, name)

    def _present(self, name: str) -> tuple[bytes, str]:
        try:
            stored = self.storage.read(METADATA + name)
        except NotStored as error:
            raise RepositoryDamaged(f"the repository's {name} is not there") from error
        except OSError as error:
            raise RepositoryDamaged(f"the repository's {name} cannot be read: {error.strerror}") from error
        return stored.data, stored.version


def _claim(version: int) -> str:
    return f"{_CLAIMS}{version}.timestamp.json"


class _Remembered:
    """Versioned files, which do not change, up to a number of bytes; the least used go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        with self._lock:
            data = self._files.get(name)
            if data is not None:
                self._files.move_to_end(name)
            return data

    def put(self, name: str, data: bytes) -> None:
        with self._lock:
            self._drop(name)
            self._files[name] = data
            self._bytes += len(data)
            while self._bytes > self._most:
                self._bytes -= len(self._files.popitem(last=False)[1])

    def forget(self, name: str) -> None:
        with self._lock:
            self._drop(name)

    def _drop(self, name: str) -> None:
        old = self._files.pop(name, None)
        self._bytes -= len(old or b"")
