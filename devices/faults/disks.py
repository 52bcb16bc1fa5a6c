"""Disks that something happens to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edge_runtime.disk import RealDisk

__all__ = ["KillDisk", "LoggingDisk", "WatchedDisk"]


class WatchedDisk:
    """A real disk that calls ``before(operation, path)`` ahead of everything that changes it."""

    def __init__(self) -> None:
        self.real = RealDisk()

    def before(self, operation: str, path: Path) -> None:
        """Raise here to fail the operation."""

    def write(self, path: Path, data: bytes, *, private: bool = False) -> None:
        self.before("write", path)
        self.real.write(path, data, private=private)

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


class LoggingDisk(WatchedDisk):
    """Writes down what changes it below ``root``, a line at once, since the process may end without a word."""

    def __init__(self, root: Path, log: Path) -> None:
        super().__init__()
        self._root = root
        self._log = log

    def before(self, operation: str, path: Path) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{operation} {path.relative_to(self._root)}\n")


class KillDisk(WatchedDisk):
    """Kills its process ahead of operation number ``at``; of a write or an append, half is done before."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def before(self, operation: str, path: Path) -> None:
        if self._due() and operation not in ("write", "append"):
            _kill()
        self._left -= 1

    def write(self, path: Path, data: bytes, *, private: bool = False) -> None:
        if self._due():
            path.write_bytes(data[: len(data) // 2])
            _kill()
        super().write(path, data, private=private)

    def append(self, path: Path, data: bytes) -> None:
        if self._due():
            self.real.append(path, data[: len(data) // 2])
            _kill()
        super().append(path, data)

    def _due(self) -> bool:
        return self._left == 0


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
