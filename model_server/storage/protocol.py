"""What the server asks of the place where its published files and blobs lie.

Names are relative paths with ``/``. An object appears whole or not at all, and has lasted when a method returns. Every
method raises StorageUnavailable where the place does not answer, and OSError where a disk refuses (full, read-only).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

__all__ = ["CACHE_FRESH", "CACHE_IMMUTABLE", "Storage", "Stored", "Write"]

# What caches are told of published files, whoever serves them: docs/spec/static-files.md.
CACHE_FRESH = "public, max-age=5"
CACHE_IMMUTABLE = "public, max-age=31536000, immutable"

Write = Callable[[BinaryIO], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object's bytes, and a token that is another once it was replaced."""

    data: bytes
    version: str


class Storage(Protocol):
    def read(self, name: str) -> Stored:
        """The present object. Raises: NotStored."""

    def version(self, name: str) -> str:
        """The token of the object, which may be a second old where asking costs a request. Raises: NotStored."""

    def size(self, name: str) -> int | None:
        """In bytes; None if there is no such object."""

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` up to ``end``, in pieces. Raises: NotStored."""

    def create(self, name: str, write: Write) -> bool:
        """Keep what ``write`` writes under a name that is free; False, with nothing changed, if it is taken. Of two
        that create one name at once, one gets True."""

    def replace(self, name: str, data: bytes, expected: str | None = None) -> str:
        """Put ``data`` in the object's place; with ``expected``, only while it has that token. The new token.

        Raises: LeaseLost if it has another.
        """

    def copy(self, source: str, name: str) -> None:
        """Keep ``source`` under a second name as well, which stays as it is if it is taken. Raises: NotStored."""

    def remove(self, name: str) -> None:
        """Nothing if there is no such object."""

    def names(self, prefix: str) -> Iterator[str]:
        """All names below a folder, in no order. ``prefix`` ends with ``/``."""

    def local(self, name: str) -> AbstractContextManager[Path]:
        """A file with the object's bytes, there until the context ends, not to be written to. Raises: NotStored."""

    def path(self, name: str) -> Path | None:
        """Where the object would lie as a file on this machine; None if it would not."""
