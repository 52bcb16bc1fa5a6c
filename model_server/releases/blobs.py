"""Files by their content: a name is a sha256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_server.errors import NotStored, RepositoryDamaged
from model_server.storage.protocol import Storage, Write

__all__ = ["Blobs"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Blobs:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def name(self, sha256: str) -> str:
        """The storage's name of a file."""
        if not _SHA256.fullmatch(sha256):
            raise RepositoryDamaged(f"{sha256!r} is not a sha256")
        return f"blobs/sha256/{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> str:
        """Keep ``data``; its sha256 in hex."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.add(sha256, lambda out: out.write(data))
        return sha256

    def add(self, sha256: str, write: Write) -> None:
        """Keep what ``write`` writes, which the caller has checked to have this sha256; nothing if it is here."""
        name = self.name(sha256)
        if self._storage.size(name) is None:
            self._storage.create(name, write)

    def read(self, sha256: str) -> bytes:
        """The bytes, checked against their name. Raises RepositoryDamaged if they are gone or changed."""
        try:
            data = self._storage.read(self.name(sha256)).data
        except NotStored as error:
            raise _gone(sha256) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _changed(sha256)
        return data

    def check(self, sha256: str) -> int:
        """The size of a file whose bytes have its name, read in pieces. Raises as `read` does."""
        found, size = hashlib.sha256(), 0
        try:
            for piece in self._storage.pieces(self.name(sha256)):
                found.update(piece)
                size += len(piece)
        except NotStored as error:
            raise _gone(sha256) from error
        if found.hexdigest() != sha256:
            raise _changed(sha256)
        return size

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        """The bytes as a file, which is there until the context ends. Raises RepositoryDamaged if they are gone."""
        try:
            with self._storage.local(self.name(sha256)) as path:
                yield path
        except NotStored as error:
            raise _gone(sha256) from error


def _gone(sha256: str) -> RepositoryDamaged:
    return RepositoryDamaged(f"the stored file {sha256} is gone; stage the release again")


def _changed(sha256: str) -> RepositoryDamaged:
    return RepositoryDamaged(f"the stored file {sha256} was changed; stage the release again")
