"""A content-addressed folder: a file's name is its sha256."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from model_server.errors import RepositoryDamaged

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
        self.add(sha256, lambda out: out.write(data))
        return sha256

    def add(self, sha256: str, write: Callable[[BinaryIO], object]) -> None:
        """Keep what ``write`` writes, which the caller has checked to have this sha256; nothing if it is here."""
        path = self.path(sha256)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with temporary.open("xb") as out:
                write(out)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, sha256: str) -> bytes:
        """The bytes, checked against their name. Raises RepositoryDamaged if they are gone or changed."""
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unreadable(sha256, error) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _changed(sha256)
        return data

    def check(self, sha256: str) -> int:
        """The size of a file whose bytes have its name, read in pieces. Raises as `read` does."""
        try:
            with self.path(sha256).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise _unreadable(sha256, error) from error
        if found != sha256:
            raise _changed(sha256)
        return size


def _unreadable(sha256: str, error: OSError) -> RepositoryDamaged:
    return RepositoryDamaged(f"the stored file {sha256} cannot be read: {error.strerror}")


def _changed(sha256: str) -> RepositoryDamaged:
    return RepositoryDamaged(f"the stored file {sha256} was changed on disk; stage the release again")
