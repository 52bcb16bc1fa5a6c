"""The smallest patch that this server can make from one file to another."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import zstandard

from edge_runtime.update.delta import words
from edge_runtime.update.delta.format import (
    FRAME_LOG,
    MAX_CONTROL_BYTES,
    MAX_DICTIONARY,
    Codec,
    Header,
    Kind,
    Record,
    Stream,
    StreamId,
    end_of,
    plane,
    write_header,
    write_record,
    write_stream,
)
from edge_runtime.update.delta.streams import LZMA_FILTERS, WINDOW_LOG
from model_server.releases.delta.aligning import align
from model_server.releases.delta.records import Part, parts_of

__all__ = ["make_delta"]

_LEVEL = 19
_SPARSE = 0.15  # of the words: where fewer changed, their places are written
_WON = 0.7  # of the windows at a fast level: words that are smaller stay so, and the high level takes most of the time
_FAST_LEVEL = 3
_SAMPLE = 1 << 18  # bytes that a codec is chosen by


def make_delta(old: bytes, new: bytes) -> bytes:
    """A patch that turns ``old`` into ``new``: words, their order plain or by size, or zstd with windows of the old
    file, whichever is smallest."""
    parts = parts_of(old, new, align(old, new))
    tried = [_patch(old, new, *_words(old, new, parts, ordered=ordered)) for ordered in (False, True)]
    best = min((each for each in tried if each is not None), key=len, default=None)
    if best is not None and len(best) < _WON * _windows_at_most(old, new):
        return best
    windows = _patch(old, new, *_windows(old, new, _LEVEL))
    return min((each for each in (best, windows) if each is not None), key=len)


Streams = Mapping[int, bytes]


def _patch(old: bytes, new: bytes, records: Sequence[Record], streams: Streams) -> bytes | None:
    """None where there would be more records than a device reads."""
    after, control = 0, bytearray()
    for record in records:
        control += write_record(record, after)
        after = end_of(record, after)
    if len(control) > MAX_CONTROL_BYTES:
        return None
    coded = {number: (*_compressed(data), len(data)) for number, data in streams.items() if data}
    coded[StreamId.CONTROL] = (*_compressed(bytes(control)), len(control))
    header = Header(
        old_sha256=hashlib.sha256(old).digest(), old_length=len(old), new_length=len(new), streams=len(coded)
    )
    table = [
        Stream(id=number, codec=codec, length=length, coded=len(data))
        for number, (codec, data, length) in sorted(coded.items())
    ]
    return b"".join(
        [write_header(header), *map(write_stream, table), *(data for _, (_, data, _) in sorted(coded.items()))]
    )


def _words(old: bytes, new: bytes, parts: Iterable[Part], *, ordered: bool) -> tuple[list[Record], Streams]:
    records: list[Record] = []
    streams: dict[int, bytearray] = {}

    def put(number: int, data: bytes) -> None:
        streams.setdefault(number, bytearray()).extend(data)

    for part in parts:
        after = new[part.start : part.start + part.length]
        if part.kind is Kind.LITERAL:
            put(StreamId.LITERALS, after)
            records.append(Record(kind=part.kind, length=part.length))
            continue
        if part.kind is Kind.COPY:
            records.append(Record(kind=part.kind, length=part.length, start=part.old))
            continue
        before = words.words(old[part.old : part.old + part.length], part.width)
        folded = words.differences(before, words.words(after, part.width))
        sparse = np.count_nonzero(folded) < _SPARSE * len(folded)
        for at in range(0, len(folded), words.BLOCK):
            block = folded[at : at + words.BLOCK]
            if sparse:
                changed = np.flatnonzero(block)
                gaps = words.to_gaps(changed)
                put(StreamId.GAPS, len(gaps).to_bytes(4, "little") + gaps)
                block = block[changed]
            elif ordered:
                block = block[words.order(before[at : at + words.BLOCK])]
            planes = block.view(np.uint8).reshape(-1, part.width)
            for index in range(part.width):
                put(plane(part.width, index), planes[:, index].tobytes())
        records.append(
            Record(
                kind=part.kind,
                length=part.length,
                start=part.old,
                width=part.width,
                ordered=ordered and not sparse,
                sparse=bool(sparse),
            )
        )
    return records, {number: bytes(data) for number, data in streams.items()}


def _windows_at_most(old: bytes, new: bytes) -> int:
    return len(_windows(old, new, _FAST_LEVEL)[1][StreamId.WINDOWS])


def _windows(old: bytes, new: bytes, level: int) -> tuple[list[Record], Streams]:
    """zstd's patch-from, a window at a time, so that a device holds a part of the old file and not all of it."""
    records, frames = [], bytearray()
    size = 1 << FRAME_LOG
    for start in range(0, len(new), size):
        part = new[start : start + size]
        middle = start + len(part) // 2 if len(new) <= len(old) else (start + len(part) // 2) * len(old) // len(new)
        room = min(MAX_DICTIONARY, 4 * len(part) + 65_536, len(old))
        low = max(0, min(middle - room // 2, len(old) - room))
        dictionary = zstandard.ZstdCompressionDict(old[low : low + room], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, window_log=FRAME_LOG + 3, source_size=len(part), dict_size=room
        )
        frame = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(part)
        records.append(Record(kind=Kind.WINDOW, length=len(part), start=low, dictionary=room, frame=len(frame)))
        frames += frame
    return records, {StreamId.WINDOWS: bytes(frames)}


def _compressed(data: bytes) -> tuple[Codec, bytes]:
    """By the codec that does best on a sample, which is most of a small stream."""
    middle = len(data) // 2
    sample = data if len(data) <= 2 * _SAMPLE else data[:_SAMPLE] + data[middle : middle + _SAMPLE]
    tried = {codec: _coded(codec, sample) for codec in Codec}
    best = min(tried, key=lambda codec: len(tried[codec]))
    found = tried[best] if sample is data else _coded(best, data)
    return (best, found) if len(found) < len(data) else (Codec.STORED, data)


def _coded(codec: Codec, data: bytes) -> bytes:
    if codec is Codec.STORED:
        return data
    if codec is Codec.LZMA:
        return lzma.compress(data, lzma.FORMAT_RAW, filters=LZMA_FILTERS)
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=WINDOW_LOG, write_content_size=False)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)
