"""A folder as storage: one server, or one file system that is shared."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_server.errors import LeaseLost, NotStored
from model_server.files import sync_folder, write_atomic
from model_server.storage.protocol import Stored, Write

__all__ = ["FolderStorage"]

PIECE_BYTES = 1 << 20


class FolderStorage:
    """`Storage` in ``root``, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> Stored:
        try:
            with self._path(name).open("rb") as file:
                return Stored(data=file.read(), version=_token(os.fstat(file.fileno())))
        except FileNotFoundError as error:
            raise _missing(name) from error

    def version(self, name: str) -> str:
        try:
            return _token(self._path(name).stat())
        except FileNotFoundError as error:
            raise _missing(name) from error

    def size(self, name: str) -> int | None:
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return None

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        try:
            file = self._path(name).open("rb")
        except FileNotFoundError as error:
            raise _missing(name) from error
        with file:
            file.seek(start)
            left = None if end is None else end - start
            while piece := file.read(PIECE_BYTES if left is None else min(PIECE_BYTES, left)):
                yield piece
                if left is not None:
                    left -= len(piece)

    def create(self, name: str, write: Write) -> bool:
        path = self._path(name)
        if path.exists():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with temporary.open("xb") as out:
                write(out)
                out.flush()
                os.fsync(out.fileno())
            created = _linked(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
        return created

    def replace(self, name: str, data: bytes, expected: str | None = None) -> str:
        # Between this look and the rename another server may come: whoever replaces holds the publisher's lease, and
        # that is what keeps others away. This finds the one that has lost it and does not know.
        if expected is not None and self.version(name) != expected:
            raise LeaseLost(f"{name} was replaced by another server meanwhile")
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
        return self.version(name)

    def copy(self, source: str, name: str) -> None:
        path, origin = self._path(name), self._path(source)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.hardlink_to(origin)
        except FileExistsError:
            return
        except FileNotFoundError as error:
            raise _missing(source) from error
        except OSError:  # a file system without hard links
            self.create(name, lambda out: [out.write(piece) for piece in self.pieces(source)])
        else:
            sync_folder(path.parent)

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def names(self, prefix: str) -> Iterator[str]:
        for folder, _, files in os.walk(self._root / prefix):
            for file in files:
                if not file.startswith("."):  # what was being written when power went
                    yield (Path(folder) / file).relative_to(self._root).as_posix()

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        path = self._path(name)
        if not path.is_file():
            raise _missing(name)
        yield path

    def path(self, name: str) -> Path | None:
        return self._path(name)

    def _path(self, name: str) -> Path:
        return self._root / name


def _linked(temporary: Path, path: Path) -> bool:
    """Give a finished file its name, unless that is taken."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: then the lease alone keeps a second writer away
        if path.exists():
            return False
        temporary.replace(path)
    return True


def _token(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _missing(name: str) -> NotStored:
    return NotStored(f"{name} is not in the storage")
