"""Disks that fail on purpose."""

from __future__ import annotations

from pathlib import Path

from devices.faults.disks import WatchedDisk
from edge_runtime.errors import StoreFull


class FullDisk(WatchedDisk):
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

    def write(self, path: Path, data: bytes, *, private: bool = False) -> None:
        try:
            super().write(path, data, private=private)
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


class RecordingDisk(WatchedDisk):
    """Writes down what changes it: (operation, file name)."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, str]] = []

    def before(self, operation: str, path: Path) -> None:
        self.log.append((operation, path.name))
