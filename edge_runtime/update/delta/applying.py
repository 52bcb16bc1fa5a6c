"""Building the new file from the old one and a patch, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

from edge_runtime.update.delta import words
from edge_runtime.update.delta.format import (
    FRAME_LOG,
    HEADER_BYTES,
    DeltaDamaged,
    Header,
    Kind,
    Record,
    StreamId,
    plane,
    read_header,
    read_records,
    read_table,
    table_bytes,
)
from edge_runtime.update.delta.streams import StreamReader

__all__ = ["apply"]

_PIECE = 1 << 18  # bytes that are copied at once


def apply(
    old: BinaryIO, patch: BinaryIO, *, old_sha256: str, old_length: int, new_length: int, write: Callable[[bytes], None]
) -> None:
    """Hand the new file to ``write`` in pieces, in order: exactly ``new_length`` bytes, or fewer and an error.

    ``old`` and ``patch`` are read by seeking. The caller has verified that ``old`` is what its digest says, and checks
    the signed digest of what was written: a patch is trusted for nothing. Takes below 8 MiB whatever it is given.
    Raises `DeltaDamaged`, OSError and what ``write`` raises; ImportError where the patch needs zstandard and it is
    not installed.
    """
    patch.seek(0)
    header = read_header(patch.read(HEADER_BYTES))
    if header.old_sha256.hex() != old_sha256 or header.old_length != old_length:
        raise DeltaDamaged("it is for another file than the one that is here")
    if header.new_length != new_length:
        raise DeltaDamaged(f"it makes {header.new_length} bytes; {new_length} were signed")
    streams = _open(patch, header)
    control = streams[StreamId.CONTROL].read_all()
    builder = _Builder(old, streams)
    ready = bytearray()
    for record in read_records(control, header):
        for piece in builder.pieces(record):
            ready += piece
            if len(ready) >= _PIECE:  # records may be tiny, and every write opens the file
                write(bytes(ready))
                ready.clear()
    if ready:
        write(bytes(ready))
    if not all(stream.finished for stream in streams.values()):
        raise DeltaDamaged("it has more in its streams than its records take")


def _open(patch: BinaryIO, header: Header) -> Mapping[int, StreamReader]:
    table = patch.read(table_bytes(header.streams))
    if len(table) != table_bytes(header.streams):
        raise DeltaDamaged("it ends within its table of streams")
    at = HEADER_BYTES + len(table)
    streams: dict[int, StreamReader] = {}
    for stream in read_table(table):
        streams[stream.id] = StreamReader(patch, at, stream)
        at += stream.coded
    if patch.seek(0, 2) != at:
        raise DeltaDamaged("its length is not that of its streams")
    return streams


class _Builder:
    def __init__(self, old: BinaryIO, streams: Mapping[int, StreamReader]) -> None:
        self._old = old
        self._streams = streams

    def pieces(self, record: Record) -> Iterator[bytes]:
        match record.kind:
            case Kind.LITERAL:
                for _, count in _steps(record.length, _PIECE):
                    yield self._read(StreamId.LITERALS, count)
            case Kind.COPY:
                for at, count in _steps(record.length, _PIECE):
                    yield self._read_old(record.start + at, count)
            case Kind.WINDOW:
                yield self._window(record)
            case Kind.WORDS:
                for at, count in _steps(record.length, words.BLOCK * record.width):
                    old = words.words(self._read_old(record.start + at, count), record.width)
                    yield words.moved(old, self._differences(record, old)).tobytes()

    def _differences(self, record: Record, old: words.Words) -> words.Words:
        if not record.sparse:
            found = self._planes(record.width, len(old))
            if not record.ordered:
                return found
            placed = np.empty_like(found)
            placed[words.order(old)] = found
            return placed
        size = int.from_bytes(self._read(StreamId.GAPS, 4), "little")
        if size > len(old):
            raise DeltaDamaged("a block has more gaps than words")
        places = words.from_gaps(self._read(StreamId.GAPS, size), len(old))
        sparse = np.zeros_like(old)
        sparse[places] = self._planes(record.width, len(places))
        return sparse

    def _planes(self, width: int, count: int) -> words.Words:
        bytes_ = np.empty((count, width), np.uint8)
        for index in range(width):
            bytes_[:, index] = np.frombuffer(self._read(plane(width, index), count), np.uint8)
        return words.words(bytes_.tobytes(), width)

    def _window(self, record: Record) -> bytes:
        import zstandard

        frame = self._read(StreamId.WINDOWS, record.frame)
        dictionary = zstandard.ZstdCompressionDict(
            self._read_old(record.start, record.dictionary), dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << FRAME_LOG)
        try:
            # Not `decompress`, which makes room for whatever the frame says that it holds.
            with decompressor.stream_reader(frame) as reader:
                made = reader.read(record.length)
        except zstandard.ZstdError as error:
            raise DeltaDamaged(f"a window is no zstd: {error}") from error
        if len(made) != record.length:
            raise DeltaDamaged("a window is cut off")
        return made

    def _read(self, stream: int, count: int) -> bytes:
        reader = self._streams.get(stream)
        if count == 0:
            return b""
        if reader is None:
            raise DeltaDamaged(f"it has no stream {stream}")
        return reader.read(count)

    def _read_old(self, at: int, count: int) -> bytes:
        self._old.seek(at)
        data = self._old.read(count)
        if len(data) != count:
            raise DeltaDamaged("the old file is shorter than it was")
        return data


def _steps(length: int, step: int) -> Iterator[tuple[int, int]]:
    for at in range(0, length, step):
        yield at, min(step, length - at)
