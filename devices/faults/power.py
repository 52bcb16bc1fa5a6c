"""A disk that forgets at a power cut what was not synced, as POSIX lets it.

Beside the real folder it keeps what is durable: the content of a file since its last fsync, the names in a folder since
the fsync of that folder. A cut can leave any mixture of durable and newer state; `Loss` has the ones that hurt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from devices.faults.disks import WatchedDisk

__all__ = ["Loss", "PowerCut", "PowerDisk"]


class Loss(StrEnum):
    """What a power cut leaves."""

    ALL = "all"  # only what was synced: names and content
    CONTENT = "content"  # names as they were, with the content that was synced: new files are empty
    NAMES = "names"  # content as it was, under the names that were synced


class PowerCut(BaseException):
    """Not an error that anybody may handle: nothing runs after it."""


@dataclass
class _File:
    durable: bytes = b""


@dataclass
class _Folder:
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    names: dict[str, _File | _Folder] = field(default_factory=dict)


class PowerDisk(WatchedDisk):
    """Cuts the power ahead of operation number ``at``; of a write or an append, half is done before. What is below
    ``root`` at first is durable. After the cut, `leave` makes the folder that the next start finds."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__()
        self.cut = False
        self._root = root
        self._left = at
        self._tree = _read(root)

    def before(self, operation: str, path: Path) -> None:
        if self.cut or self._left == 0:
            self.cut = True
            raise PowerCut
        self._left -= 1

    def write(self, path: Path, data: bytes, *, private: bool = False) -> None:
        on = not self.cut
        try:
            super().write(path, data, private=private)
        except PowerCut:
            if on:
                path.write_bytes(data[: len(data) // 2])
                self._file(path).durable = b""  # of what was there, too: opening it for writing took its content
            raise
        self._file(path).durable = data  # `Disk.write` promises the content, and not the name

    def append(self, path: Path, data: bytes) -> None:
        on = not self.cut
        try:
            super().append(path, data)
        except PowerCut:
            if on:
                self.real.append(path, data[: len(data) // 2])
                self._file(path)
            raise
        self._file(path)

    def fsync(self, path: Path) -> None:
        super().fsync(path)
        if path.is_dir():
            folder = self._folder(path)
            folder.durable = dict(folder.names)
        else:
            self._file(path).durable = path.read_bytes()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._folder(target.parent).names[target.name] = self._folder(source.parent).names.pop(source.name)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._folder(path.parent).names.pop(path.name, None)

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._folder(path)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._folder(path.parent).names.pop(path.name, None)

    def leave(self, loss: Loss, folder: Path) -> None:
        """Make ``folder``, which is not there yet, what is left of the root."""
        now = (
            {id(file): path.read_bytes() for file, path in _files(self._tree, self._root)} if loss is Loss.NAMES else {}
        )

        def make(node: _Folder, place: Path) -> None:
            place.mkdir(parents=True)
            for name, entry in (node.names if loss is Loss.CONTENT else node.durable).items():
                if isinstance(entry, _Folder):
                    make(entry, place / name)
                else:
                    (place / name).write_bytes(now.get(id(entry), entry.durable))

        make(self._tree, folder)

    def _folder(self, path: Path) -> _Folder:
        node = self._tree
        for name in path.relative_to(self._root).parts:
            child = node.names.setdefault(name, _Folder())
            if not isinstance(child, _Folder):
                raise NotADirectoryError(path)
            node = child
        return node

    def _file(self, path: Path) -> _File:
        file = self._folder(path.parent).names.setdefault(path.name, _File())
        if not isinstance(file, _File):
            raise IsADirectoryError(path)
        return file


def _read(path: Path) -> _Folder:
    folder = _Folder()
    for entry in path.iterdir():
        folder.names[entry.name] = _read(entry) if entry.is_dir() else _File(entry.read_bytes())
    folder.durable = dict(folder.names)
    return folder


def _files(node: _Folder, path: Path) -> Iterator[tuple[_File, Path]]:
    """Every file that has a name now, and where it is."""
    for name, entry in node.names.items():
        if isinstance(entry, _Folder):
            yield from _files(entry, path / name)
        else:
            yield entry, path / name
