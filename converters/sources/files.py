"""Reading what a stranger gave: how much, from where, and never through a link out of the model's folder."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from converters.errors import ModelUnreadable

__all__ = ["MAX_MODEL_BYTES", "check_archive", "files_in", "read_inside", "read_model"]

MAX_MODEL_BYTES = 2**31 - 1  # what one protobuf or flatbuffer can hold, and so the most that a model file is
MAX_ENTRIES = 10_000
MAX_RATIO = 200  # weights hardly compress; what grows more is a bomb
SMALL = 16 << 20  # bytes that may be of any ratio: a text of zeros is no harm


def read_model(path: Path, *, limit: int = MAX_MODEL_BYTES) -> bytes:
    """All bytes of a file that the user named. Raises `ModelUnreadable`."""
    if not path.is_file():
        raise ModelUnreadable(f"{path}: no such file" if not path.exists() else f"{path} is not a file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ModelUnreadable(f"{path} has {size} bytes; at most {limit} are read")
        data = file.read(limit + 1)
    if not data:
        raise ModelUnreadable(f"{path} is empty")
    return data


def read_inside(folder: Path, location: str, *, offset: int = 0, length: int | None = None) -> bytes:
    """Bytes of a file that another file refers to, which must lie in ``folder`` as itself: not behind a link.

    A hard link is refused too: it shows another file's content under a harmless name. Raises `ModelUnreadable`.
    """
    path = _inside(folder, location)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ModelUnreadable(f"{path} cannot be read: {error.strerror or error}") from error
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ModelUnreadable(f"{path} is not a regular file")
        if about.st_nlink > 1:
            raise ModelUnreadable(
                f"{path} is a hard link: the same file is known elsewhere under another name. Give a copy of the model"
            )
        length = about.st_size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > about.st_size:
            raise ModelUnreadable(f"{path} has {about.st_size} bytes, not {length} from byte {offset} on")
        if length > MAX_MODEL_BYTES:
            raise ModelUnreadable(f"{path}: {length} bytes; at most {MAX_MODEL_BYTES} are read")
        file.seek(offset)
        return file.read(length)


def files_in(folder: Path, *, limit: int = MAX_MODEL_BYTES) -> Iterator[tuple[str, bytes]]:
    """(path relative to ``folder`` with ``/``, content) of every file in it, sorted. Raises `ModelUnreadable` for
    links, for what is no regular file, and past ``limit`` bytes in all."""
    total = 0
    paths = sorted(folder.rglob("*"))
    if len(paths) > MAX_ENTRIES:
        raise ModelUnreadable(f"{folder} holds {len(paths)} files; at most {MAX_ENTRIES} are read")
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            continue
        relative = path.relative_to(folder).as_posix()
        data = read_inside(folder, relative)
        total += len(data)
        if total > limit:
            raise ModelUnreadable(f"{folder} holds more than {limit} bytes")
        yield relative, data


def check_archive(source: Path | BinaryIO, name: str, *, limit: int = MAX_MODEL_BYTES) -> tuple[str, ...]:
    """Names in a zip that is safe to unpack. Raises `ModelUnreadable` for a damaged one, a bomb, two entries of one
    name, a link, and a name that would leave the folder."""
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelUnreadable(f"{name} is not a whole zip file: {error}") from error
    if len(entries) > MAX_ENTRIES:
        raise ModelUnreadable(f"{name} holds {len(entries)} entries; at most {MAX_ENTRIES} are read")
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if total > limit or total > max(SMALL, MAX_RATIO * packed):
        raise ModelUnreadable(f"{name} would unpack to {total} bytes from {packed}: a zip bomb, or no model")
    seen: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
            raise ModelUnreadable(f"{name} holds the entry {entry.filename!a}, which leaves its folder")
        if entry.filename in seen:
            raise ModelUnreadable(f"{name} holds two entries {entry.filename!a}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ModelUnreadable(f"{name} holds the link {entry.filename!a}")
        seen.add(entry.filename)
    return tuple(entry.filename for entry in entries)


def _inside(folder: Path, location: str) -> Path:
    path = PurePosixPath(location)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in location or "\0" in location:
        raise ModelUnreadable(f"the model refers to the file {location!a}, which is not inside its folder")
    current = folder
    for part in path.parts:
        current = current / part
        if current.is_symlink():
            raise ModelUnreadable(f"{current} is a symbolic link; give a copy of the model that holds the file itself")
    return current
