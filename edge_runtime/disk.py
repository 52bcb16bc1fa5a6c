"""The one door to the disk: every durable write of a device goes through `Disk`, so that a fault can be put at each.

A missing file raises FileNotFoundError, a full disk `StoreFull`, anything else that the system refuses `StoreError`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from edge_runtime.errors import StoreError, StoreFull, StoreLocked

__all__ = ["Disk", "RealDisk", "read_sealed", "remove_folder", "sealed", "write_atomic", "write_sealed"]


class Disk(Protocol):
    """What the runtime asks of a file system."""

    def read(self, path: Path) -> bytes: ...

    def open(self, path: Path) -> BinaryIO:
        """The file, opened for reading."""
        ...

    def write(self, path: Path, data: bytes, *, private: bool = False) -> None:
        """Make or replace a file. When this returns, the content is on the disk; its name is not, until `fsync` of the
        folder. A ``private`` one can be read by its owner only, from the first byte on."""
        ...

    def append(self, path: Path, data: bytes) -> None:
        """Add to the end of a file, making it if needed. Durable only after `fsync`."""
        ...

    def fsync(self, path: Path) -> None:
        """Make a file's content, or a folder's names, durable."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move a file over ``target``, or a folder to a new name, at once. Durable after `fsync` of the folder."""
        ...

    def unlink(self, path: Path) -> None: ...

    def mkdir(self, path: Path) -> None:
        """Make a folder and its parents; one that exists is fine."""
        ...

    def rmdir(self, path: Path) -> None: ...

    def listdir(self, path: Path) -> list[str]: ...

    def size(self, path: Path) -> int | None:
        """Bytes of a file; None if there is none."""
        ...

    def exists(self, path: Path) -> bool: ...

    def free_bytes(self, path: Path) -> int:
        """Space that this process may still use on the file system that holds the folder ``path``."""
        ...

    def lock(self, path: Path) -> Callable[[], None]:
        """Take the lock file ``path`` for this object alone; the result gives it back. Raises `StoreLocked`."""
        ...


class RealDisk:
    """The file system of this machine."""

    def read(self, path: Path) -> bytes:
        with _translated("read", path):
            return path.read_bytes()

    def open(self, path: Path) -> BinaryIO:
        with _translated("read", path):
            return path.open("rb")

    def write(self, path: Path, data: bytes, *, private: bool = False) -> None:
        with (
            _in_folder(path),
            _translated("write", path),
            open(path, "wb", opener=_open_private if private else None) as file,
        ):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def append(self, path: Path, data: bytes) -> None:
        with _in_folder(path), _translated("write", path), path.open("ab") as file:
            file.write(data)

    def fsync(self, path: Path) -> None:
        if sys.platform == "win32" and path.is_dir():
            return  # Windows has no such call; it makes names durable with the file
        with _translated("sync", path):
            # A file is opened for writing, because some systems sync nothing through a read-only descriptor.
            descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        with _translated("rename", source):
            source.replace(target)

    def unlink(self, path: Path) -> None:
        with _translated("remove", path):
            path.unlink()

    def mkdir(self, path: Path) -> None:
        with _translated("make", path):
            path.mkdir(parents=True, exist_ok=True)

    def rmdir(self, path: Path) -> None:
        with _translated("remove", path):
            path.rmdir()

    def listdir(self, path: Path) -> list[str]:
        with _translated("list", path):
            return sorted(entry.name for entry in path.iterdir())

    def size(self, path: Path) -> int | None:
        with _translated("look at", path):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return None

    def exists(self, path: Path) -> bool:
        with _translated("look at", path):
            return path.exists()

    def free_bytes(self, path: Path) -> int:
        with _translated("look at", path):
            return shutil.disk_usage(path).free

    def lock(self, path: Path) -> Callable[[], None]:
        with _translated("lock", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _lock(descriptor)
            except (BlockingIOError, PermissionError) as error:
                os.close(descriptor)
                raise StoreLocked(
                    f"{path.parent} is in use by another runtime: close that one, or give this one its own state folder"
                ) from error
        owner = os.getpid()

        def unlock() -> None:
            # A child that was forked meanwhile shares the lock, and would keep it although its parent is done.
            if os.getpid() == owner:
                _unlock(descriptor)
            os.close(descriptor)

        return unlock


def write_atomic(disk: Disk, path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace a file so that a power cut leaves either the old content or the new, durable when this returns. A
    ``private`` one can be read by its owner only."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        disk.write(temporary, data, private=private)
        disk.rename(temporary, path)
    except StoreError:
        with contextlib.suppress(StoreError, FileNotFoundError):
            disk.unlink(temporary)
        raise
    disk.fsync(path.parent)


def remove_folder(disk: Disk, path: Path) -> None:
    """Remove a folder of plain files. One that does not exist is fine."""
    try:
        names = disk.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        disk.unlink(path / name)
    disk.rmdir(path)


def write_sealed(disk: Disk, path: Path, body: dict[str, object], *, private: bool = False) -> None:
    """`write_atomic` of JSON with its own digest, so that damage is seen when it is read."""
    write_atomic(disk, path, sealed(body), private=private)


def sealed(body: dict[str, object]) -> bytes:
    """The content that `write_sealed` writes and `read_sealed` accepts."""
    return json.dumps(body | {"sha256": _seal(body)}, indent=1).encode() + b"\n"


def read_sealed(disk: Disk, path: Path) -> dict[str, object] | None:
    """What `write_sealed` wrote, or None if the file is missing or damaged."""
    try:
        body = json.loads(disk.read(path))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or body.pop("sha256", None) != _seal(body):
        return None
    return body


def _seal(body: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _open_private(path: str, flags: int) -> int:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 one that was cut off may be open to all
    return os.open(path, flags | os.O_EXCL, 0o600)


@contextlib.contextmanager
def _translated(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"cannot {doing} {path}: no space left; free some and check again") from error
        raise StoreError(f"cannot {doing} {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _in_folder(path: Path) -> Iterator[None]:
    """A file that is made is never missing: its folder is."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"cannot write {path}: its folder was removed; open the state folder again") from error


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
