"""A content-addressed folder: a file's name is its sha256."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from model_server.errors import RepositoryDamaged
from model_server.signing.repository import write_atomic

__all__ = ["Blobs"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Blobs:
    def __init__(self, root: Path) -> None:
        self._root = root / "sha256"

    def path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise RepositoryDamaged(f"{sha256!r} is not a sha256")
        return self._root / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Keep ``data``; its sha256 in hex."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        return sha256

    def read(self, sha256: str) -> bytes:
        """The bytes, checked against their name. Raises RepositoryDamaged if they are gone or changed."""
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RepositoryDamaged(f"the stored file {sha256} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RepositoryDamaged(f"the stored file {sha256} was changed on disk; stage the release again")
        return data
