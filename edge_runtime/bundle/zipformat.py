"""The zip container of a bundle: one byte string for given entries, so that a reader can account for every byte.

Source: APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central header), 4.3.16 (end record). Everything that
APPNOTE leaves open is fixed here: stored entries, no flags, no extra fields, no comments, no zip64, one date, entries
back to back in the order of their names. Readers that disagree about a zip disagree about one of those.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.bundle import limits
from edge_runtime.bundle.errors import ArchiveError, BundleTooLarge

__all__ = ["Directory", "Entry", "Limits", "central_header", "end_record", "local_header", "read_directory"]

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_SHARED = ("version needed", "flags", "compression method", "time", "date", "crc", "compressed size", "size")
_CENTRAL_FIELDS = (
    *("signature", "version made by", *_SHARED, "name length", "extra field length", "comment length"),
    *("disk", "internal attributes", "file mode", "offset"),
)
_END_FIELDS = (
    *("signature", "disk", "directory's disk", "entries on this disk", "entries"),
    *("directory size", "directory offset", "comment length"),
)

# What a differing field means, the telling ones first.
_MEANING = {
    "flags": "encrypted, or with sizes in a data descriptor, or with a name that is not ASCII",
    "compression method": "compressed",
    "compressed size": "compressed, or zip64",
    "file mode": "a link, a folder or a device, or with other permissions",
    "offset": "overlapping another entry, or with a gap before it",
}
_VERSION_NEEDED = 10  # 1.0: stored files
_MADE_BY = 3 << 8 | 10  # Unix, so that the file mode means what it says
_DATE = 0x0021  # 1980-01-01
_MODE = 0o100644 << 16  # a regular file


class Seekable(Protocol):
    """As much of a binary file as `read_directory` needs."""

    def seek(self, offset: int, /) -> int: ...
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one caller is ready to read. Both may be lowered below the format's own caps, never raised above."""

    max_entries: int = limits.MAX_ENTRIES
    max_bytes: int = limits.MAX_ARCHIVE_BYTES

    def __post_init__(self) -> None:
        if not 1 <= self.max_entries <= limits.MAX_ENTRIES:
            raise ValueError(f"max_entries must be from 1 to {limits.MAX_ENTRIES}")
        if not 1 <= self.max_bytes <= limits.MAX_ARCHIVE_BYTES:
            raise ValueError(f"max_bytes must be from 1 to {limits.MAX_ARCHIVE_BYTES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored file: its whole path, CRC-32, size in bytes, and where its local header starts."""

    name: str
    crc: int
    size: int
    offset: int

    @property
    def data_offset(self) -> int:
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        return self.data_offset + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """The entries in their order, and the exact bytes that end the archive: central directory and end record."""

    entries: tuple[Entry, ...]
    tail: bytes


def local_header(entry: Entry) -> bytes:
    """The bytes before an entry's data."""
    name = entry.name.encode("ascii")
    size = entry.size
    fixed = _LOCAL.pack(b"PK\3\4", _VERSION_NEEDED, 0, 0, 0, _DATE, entry.crc, size, size, len(name), 0)
    return fixed + name


def central_header(entry: Entry) -> bytes:
    """The bytes of an entry in the central directory."""
    name = entry.name.encode("ascii")
    return _CENTRAL.pack(*_expected_central(entry)) + name


def end_record(entries: Sequence[Entry]) -> bytes:
    """The last 22 bytes."""
    offset = entries[-1].end
    size = sum(_CENTRAL.size + len(entry.name) for entry in entries)
    return _END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), size, offset, 0)


def read_directory(file: Seekable, size: int, limit: Limits) -> Directory:
    """Parse the end of an archive of ``size`` bytes and account for every byte of it but the entries' own.

    Raises `BundleTooLarge` past a cap and `ArchiveError` for anything that differs from the one allowed form. Names
    are checked as ASCII without NUL and for strictly ascending order here; their grammar is the caller's matter.
    """
    if size > limit.max_bytes:
        raise BundleTooLarge(f"the archive has {size} bytes; at most {limit.max_bytes} are read")
    if size < _END.size:
        raise ArchiveError(f"not a bundle, or truncated: {size} bytes")
    end = _read(file, size - _END.size, _END.size)
    count, directory_size, directory_offset = _check_end(end, size, limit)
    directory = _read(file, directory_offset, directory_size)
    entries: list[Entry] = []
    position = 0
    offset = 0
    for number in range(count):
        entry, position = _read_central(directory, position, number, offset)
        if entries and entry.name <= entries[-1].name:
            what = "appears twice" if entry.name == entries[-1].name else "is out of order (names must ascend)"
            raise ArchiveError(f"entry {entry.name!r} {what}")
        entries.append(entry)
        offset = entry.end
    if position != len(directory):
        raise ArchiveError(f"{len(directory) - position} stray bytes in the central directory")
    if offset != directory_offset:
        raise ArchiveError(f"entries end at byte {offset}, but the central directory starts at {directory_offset}")
    return Directory(entries=tuple(entries), tail=directory + end)


def _check_end(end: bytes, size: int, limit: Limits) -> tuple[int, int, int]:
    fields = dict(zip(_END_FIELDS, _END.unpack(end), strict=True))
    if fields["signature"] != b"PK\5\6":
        raise ArchiveError("not a bundle, or truncated, or with bytes after its end: no zip end record in the last 22")
    count, directory_size, offset = fields["entries"], fields["directory size"], fields["directory offset"]
    if count == 0xFFFF or directory_size == 0xFFFFFFFF or offset == 0xFFFFFFFF:
        raise ArchiveError("zip64 archives are not bundles")
    if count > limit.max_entries:
        raise BundleTooLarge(f"{count} entries; at most {limit.max_entries} are read")
    if count == 0:
        raise ArchiveError("the archive has no entries")
    for name in ("disk", "directory's disk", "comment length"):
        if fields[name] != 0:
            raise ArchiveError(f"end record: {name} is {fields[name]}, must be 0")
    if fields["entries on this disk"] != count:
        raise ArchiveError(f"end record: {fields['entries on this disk']} entries on this disk, {count} in all")
    if offset + directory_size != size - _END.size:
        raise ArchiveError("the central directory does not end where the end record begins")
    if directory_size > count * (_CENTRAL.size + limits.MAX_ENTRY_NAME):
        raise BundleTooLarge(f"a central directory of {directory_size} bytes for {count} entries")
    return count, directory_size, offset


def _read_central(directory: bytes, position: int, number: int, offset: int) -> tuple[Entry, int]:
    """Entry ``number`` of the directory, whose header must be the only one possible for its name, CRC and size."""
    start = position + _CENTRAL.size
    if start > len(directory):
        raise ArchiveError(f"the central directory is cut off at entry {number}")
    fields = _CENTRAL.unpack_from(directory, position)
    named = dict(zip(_CENTRAL_FIELDS, fields, strict=True))
    length = named["name length"]
    if not 1 <= length <= limits.MAX_ENTRY_NAME or start + length > len(directory):
        raise ArchiveError(f"entry {number} has a name of {length} bytes; 1 to {limits.MAX_ENTRY_NAME} are read")
    raw = directory[start : start + length]
    if not raw.isascii() or b"\0" in raw:
        raise ArchiveError(f"entry {number} has a name that is not ASCII, or holds NUL: {raw!a}")
    entry = Entry(name=raw.decode("ascii"), crc=named["crc"], size=named["size"], offset=offset)
    expected = dict(zip(_CENTRAL_FIELDS, _expected_central(entry), strict=True))
    for name in (*_MEANING, *_CENTRAL_FIELDS):
        if named[name] != expected[name]:
            meaning = f" ({_MEANING[name]})" if name in _MEANING else ""
            raise ArchiveError(
                f"entry {entry.name!r}: {name} is {_show(named[name])}, in a bundle {_show(expected[name])}{meaning}: "
                "it was changed, or not packed by write_bundle"
            )
    return entry, start + length


def _expected_central(entry: Entry) -> tuple[bytes | int, ...]:
    shared = (_VERSION_NEEDED, 0, 0, 0, _DATE, entry.crc, entry.size, entry.size)
    return (b"PK\1\2", _MADE_BY, *shared, len(entry.name), 0, 0, 0, 0, _MODE, entry.offset)


def _read(file: Seekable, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ArchiveError(f"the file ended at byte {offset + len(data)} while being read")
    return data


def _show(value: bytes | int) -> str:
    return ascii(value) if isinstance(value, bytes) else f"{value:#x}"
