"""Disks that fail on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edge_runtime.disk import RealDisk
from edge_runtime.errors import StoreFull


class WrappedDisk:
    """A real disk that calls ``before(operation, path)`` ahead of everything that changes it."""

    def __init__(self) -> None:
        self.real = RealDisk()

    def before(self, operation: str, path: Path) -> None:
        """Raise here to fail the operation."""

    def write(self, path: Path, data: bytes) -> None:
        self.before("write", path)
        self.real.write(path, data)

    def append(self, path: Path, data: bytes) -> None:
        self.before("append", path)
        self.real.append(path, data)

    def fsync(self, path: Path) -> None:
        self.before("fsync", path)
        self.real.fsync(path)

    def rename(self, source: Path, target: Path) -> None:
        self.before("rename", target)
        self.real.rename(source, target)

    def unlink(self, path: Path) -> None:
        self.before("unlink", path)
        self.real.unlink(path)

    def mkdir(self, path: Path) -> None:
        if not path.exists():
            self.before("mkdir", path)
        self.real.mkdir(path)

    def rmdir(self, path: Path) -> None:
        self.before("rmdir", path)
        self.real.rmdir(path)

    def read(self, path: Path) -> bytes:
        return self.real.read(path)

    def open(self, path: Path) -> BinaryIO:
        return self.real.open(path)

    def listdir(self, path: Path) -> list[str]:
        return self.real.listdir(path)

    def size(self, path: Path) -> int | None:
        return self.real.size(path)

    def exists(self, path: Path) -> bool:
        return self.real.exists(path)

    def free_bytes(self, path: Path) -> int:
        return self.real.free_bytes(path)

    def lock(self, path: Path) -> Callable[[], None]:
        return self.real.lock(path)


class FullDisk(WrappedDisk):
    """Full from the ``allowed``-th operation that takes space (write, append, rename, mkdir) on: half of the data of
    the failing write is still written, as a real disk does. Removing keeps working."""

    TAKES_SPACE = frozenset({"write", "append", "rename", "mkdir"})

    def __init__(self, allowed: int) -> None:
        super().__init__()
        self.allowed = allowed
        self.used = 0

    @property
    def ran_out(self) -> bool:
        return self.used > self.allowed

    def before(self, operation: str, path: Path) -> None:
        if operation in self.TAKES_SPACE:
            self.used += 1
            if self.used > self.allowed:
                raise StoreFull(f"cannot {operation} {path}: no space left; free some and check again")

    def write(self, path: Path, data: bytes) -> None:
        try:
            super().write(path, data)
        except StoreFull:
            path.write_bytes(data[: len(data) // 2])
            raise

    def append(self, path: Path, data: bytes) -> None:
        try:
            super().append(path, data)
        except StoreFull:
            with path.open("ab") as file:
                file.write(data[: len(data) // 2])
            raise


class RecordingDisk(WrappedDisk):
    """Writes down what changes it: (operation, file name)."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, str]] = []

    def before(self, operation: str, path: Path) -> None:
        self.log.append((operation, path.name))
