"""The bytes of a patch: a header, a table of streams, the streams. Pure.

header   magic ``ESDELTA1``, sha256 of the old file (32 bytes), its length (u64), the new file's length (u64),
         number of streams (u8); all numbers little-endian
table    for each stream: its id (u8), its codec (u8), its length when decoded (u64), its length here (u64)
streams  one after the other, in the order of the table

The stream `CONTROL` says how to build the new file from its start to its end, as records:

a byte, whose low two bits are the `Kind`, bits 2 and 3 the base-2 logarithm of the word's width, bit 4 `ORDERED`,
bit 5 `SPARSE`; the length in bytes of the new file that it makes (varint); except for `Kind.LITERAL`, where the old
file is read: how far from the end of what the last record read (zigzag varint); for `Kind.WINDOW`, how many bytes of
the old file are its dictionary (varint), and how many of the stream `WINDOWS` are its frame (varint).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "FRAME_LOG",
    "HEADER_BYTES",
    "MAGIC",
    "MAX_CONTROL_BYTES",
    "MAX_DICTIONARY",
    "MAX_STREAMS",
    "ORDERED",
    "SPARSE",
    "Codec",
    "DeltaDamaged",
    "Header",
    "Kind",
    "Record",
    "Stream",
    "StreamId",
    "end_of",
    "plane",
    "read_header",
    "read_records",
    "read_table",
    "table_bytes",
    "write_header",
    "write_record",
    "write_stream",
]

MAGIC = b"ESDELTA1"
MAX_STREAMS = 16
MAX_CONTROL_BYTES = 1 << 20  # bounds the records, and with them the time that a hostile patch can take
MAX_DICTIONARY = 3 << 19  # bytes of the old file, held in memory while a window is decoded
FRAME_LOG = 19  # a window makes at most 2**FRAME_LOG bytes
ORDERED, SPARSE = 1 << 4, 1 << 5
_HEADER = struct.Struct("<8s32sQQB")
_ROW = struct.Struct("<BBQQ")
HEADER_BYTES = _HEADER.size


class DeltaDamaged(ValueError):
    """The patch is not one, is cut off, or asks for what the files do not have."""


class Kind(IntEnum):
    """How a record makes its part of the new file."""

    LITERAL = 0  # out of the patch
    COPY = 1  # out of the old file
    WORDS = 2  # words of the old file, plus differences
    WINDOW = 3  # a zstd frame, with a part of the old file as its dictionary


class Codec(IntEnum):
    STORED = 0
    ZSTD = 1
    LZMA = 2


class StreamId(IntEnum):
    """The planes of the words' differences come behind these, see `plane`."""

    CONTROL = 0
    LITERALS = 1
    WINDOWS = 2
    GAPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    old_sha256: bytes
    old_length: int
    new_length: int
    streams: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Of one id: ``length`` when decoded, ``coded`` bytes in the patch."""

    id: int
    codec: Codec
    length: int
    coded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """``start`` is an offset in the old file, 0 for literals. ``width`` of words, in bytes; ``dictionary`` and
    ``frame`` of a window, in bytes."""

    kind: Kind
    length: int
    start: int = 0
    width: int = 1
    ordered: bool = False
    sparse: bool = False
    dictionary: int = 0
    frame: int = 0


def plane(width: int, index: int) -> int:
    """The id of the stream with byte ``index`` (0 is the lowest) of every difference of words of ``width``."""
    return {1: 4, 2: 5, 4: 7}[width] + index


def write_header(header: Header) -> bytes:
    return _HEADER.pack(MAGIC, header.old_sha256, header.old_length, header.new_length, header.streams)


def read_header(data: bytes) -> Header:
    """Raises `DeltaDamaged`."""
    if len(data) != HEADER_BYTES:
        raise DeltaDamaged("it ends within its header")
    magic, old_sha256, old_length, new_length, streams = _HEADER.unpack(data)
    if magic != MAGIC:
        raise DeltaDamaged("it is no delta of a version that this runtime knows")
    if not 1 <= streams <= MAX_STREAMS:
        raise DeltaDamaged(f"it has {streams} streams")
    return Header(old_sha256=old_sha256, old_length=old_length, new_length=new_length, streams=streams)


def table_bytes(streams: int) -> int:
    return _ROW.size * streams


def write_stream(stream: Stream) -> bytes:
    return _ROW.pack(stream.id, stream.codec, stream.length, stream.coded)


def read_table(data: bytes) -> tuple[Stream, ...]:
    """Raises `DeltaDamaged`."""
    if len(data) % _ROW.size:
        raise DeltaDamaged("it ends within its table of streams")
    found: dict[int, Stream] = {}
    for number, codec, length, coded in _ROW.iter_unpack(data):
        if number in found or number > plane(4, 3) or codec not in Codec.__members__.values():
            raise DeltaDamaged(f"it has a stream {number} with codec {codec} that cannot be")
        found[number] = Stream(id=number, codec=Codec(codec), length=length, coded=coded)
    if StreamId.CONTROL not in found or found[StreamId.CONTROL].length > MAX_CONTROL_BYTES:
        raise DeltaDamaged("its control stream is missing or too long")
    return tuple(found.values())


def write_record(record: Record, after: int) -> bytes:
    """``after``: where the last record stopped to read the old file."""
    flags = record.kind | (record.width.bit_length() - 1) << 2
    flags |= (ORDERED if record.ordered else 0) | (SPARSE if record.sparse else 0)
    out = bytearray([flags])
    out += _varint(record.length)
    if record.kind is not Kind.LITERAL:
        distance = record.start - after
        out += _varint(distance << 1 if distance >= 0 else (-distance << 1) - 1)
    if record.kind is Kind.WINDOW:
        out += _varint(record.dictionary) + _varint(record.frame)
    return bytes(out)


def end_of(record: Record, after: int) -> int:
    """Where a record stops to read the old file."""
    if record.kind is Kind.LITERAL:
        return after
    return record.start + (record.dictionary if record.kind is Kind.WINDOW else record.length)


def read_records(control: bytes, header: Header) -> Iterator[Record]:
    """The records, each within the old file, together exactly the new one. Raises `DeltaDamaged`, at the end too."""
    at, after, made = 0, 0, 0
    while at < len(control):
        flags = control[at]
        length, at = _read_varint(control, at + 1)
        kind, start, dictionary, frame = Kind(flags & 3), 0, 0, 0
        if kind is not Kind.LITERAL:
            step, at = _read_varint(control, at)
            start = after + (step >> 1 if not step & 1 else -((step + 1) >> 1))
        if kind is Kind.WINDOW:
            dictionary, at = _read_varint(control, at)
            frame, at = _read_varint(control, at)
        width = 1 << (flags >> 2 & 3)
        record = Record(
            kind=kind,
            length=length,
            start=start,
            width=width,
            ordered=bool(flags & ORDERED),
            sparse=bool(flags & SPARSE),
            dictionary=dictionary,
            frame=frame,
        )
        after = end_of(record, after)
        made += length
        if flags >> 6 or length < 1 or made > header.new_length:
            raise DeltaDamaged("a record makes more than the new file, or nothing")
        if start < 0 or after > header.old_length or dictionary > min(MAX_DICTIONARY, 4 * length + 65_536):
            raise DeltaDamaged("a record reads what the old file does not have")
        if kind is Kind.WINDOW and length > 1 << FRAME_LOG:
            raise DeltaDamaged("a window is larger than one may be")
        if kind is Kind.WORDS and (width > 4 or length % width):
            raise DeltaDamaged("a record has words that cannot be")
        yield record
    if made != header.new_length:
        raise DeltaDamaged("its records make less than the new file")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        if at >= len(data):
            raise DeltaDamaged("its control stream is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DeltaDamaged("a number in its control stream has no end")
