"""Reading one stream of a patch in pieces, in bounded memory whatever it claims."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from typing import BinaryIO, cast

from edge_runtime.update.delta.format import Codec, DeltaDamaged, Stream

__all__ = ["LZMA_FILTERS", "WINDOW_LOG", "StreamReader"]

WINDOW_LOG = 18  # of zstd; differences repeat little, and every open stream has a window
LZMA_FILTERS = [
    {"id": lzma.FILTER_LZMA2, "dict_size": 1 << WINDOW_LOG, "lc": 0, "lp": 0, "pb": 0, "nice_len": 64},
]
_PIECE = 1 << 14  # coded bytes read at once


class StreamReader:
    """`read` gives the decoded bytes in order. Every error of a codec is a `DeltaDamaged`."""

    def __init__(self, file: BinaryIO, offset: int, stream: Stream) -> None:
        self._file = file
        self._offset = offset
        self._end = offset + stream.coded
        self._left = stream.length
        self._decode = _decoder(stream.codec)

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes. Raises `DeltaDamaged`."""
        if count > self._left:
            raise DeltaDamaged("a stream is shorter than its records ask for")
        self._left -= count
        out = bytearray()
        while len(out) < count:
            piece = self._decode(self._coded, count - len(out))
            if not piece:
                raise DeltaDamaged("a stream is cut off")
            out += piece
        return bytes(out)

    def read_all(self) -> bytes:
        return self.read(self._left)

    @property
    def finished(self) -> bool:
        return self._left == 0

    def _coded(self, count: int = _PIECE) -> bytes:
        """The next coded bytes; none at the end."""
        self._file.seek(self._offset)
        data = self._file.read(min(count, self._end - self._offset))
        self._offset += len(data)
        return data


Source = Callable[..., bytes]


def _decoder(codec: Codec) -> Callable[[Source, int], bytes]:
    """Gives at most so many decoded bytes, and none only at the end."""
    if codec is Codec.STORED:
        return lambda source, count: source(count)
    if codec is Codec.LZMA:
        return _Lzma()
    return _Zstd()


class _Lzma:
    def __init__(self) -> None:
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=LZMA_FILTERS)

    def __call__(self, source: Source, count: int) -> bytes:
        while not self._decompressor.eof:
            data = source() if self._decompressor.needs_input else b""
            try:
                out = self._decompressor.decompress(data, count)
            except (lzma.LZMAError, EOFError) as error:
                raise DeltaDamaged(f"a stream is no LZMA: {error}") from error
            if out:
                return out
            if not data and self._decompressor.needs_input:
                return b""
        return b""


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        self._reader: zstandard.ZstdDecompressionReader | None = None

    def __call__(self, source: Source, count: int) -> bytes:
        if self._reader is None:
            self._reader = self._decompressor.stream_reader(cast("BinaryIO", _AsFile(source)), read_size=_PIECE)
        try:
            return self._reader.read(count)
        except self._error as error:
            raise DeltaDamaged(f"a stream is no zstd: {error}") from error


class _AsFile:
    def __init__(self, source: Source) -> None:
        self.read = source
