"""One tool that makes and applies patches, in a process that holds nothing else: `worker.py TOOL`.

A request is one line of JSON on standard input, its answer one on standard output. It imports nothing of the bench,
since the peers' environments have only the peer. Only the work itself is timed, files read and written included.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
ZSTD_LEVEL = 19
MAX_WINDOW_LOG = 27  # of zstd's long mode, as its command line reads without being told to
LZMA_WINDOW_LOG = 25  # 32 MiB: more than any file here


class Tool(Protocol):
    def make(self, old: bytes, new: bytes) -> bytes: ...

    def apply(self, request: dict[str, Any]) -> None: ...


class Edgeship:
    """Reads and writes in pieces, as a device does; the signed digest is checked elsewhere, as the peers' is."""

    def __init__(self) -> None:
        import zstandard  # noqa: F401 - the applier imports it late; a library is no memory of a patch

        from edge_runtime.update import delta

        self._apply = delta.apply

    def make(self, old: bytes, new: bytes) -> bytes:
        from model_server.releases.delta import make_delta

        return make_delta(old, new)

    def apply(self, request: dict[str, Any]) -> None:
        with (
            Path(request["old"]).open("rb") as old,
            Path(request["patch"]).open("rb") as patch,
            Path(request["made"]).open("wb") as made,
        ):
            self._apply(
                old,
                patch,
                old_sha256=request["old_sha256"],
                old_length=request["old_length"],
                new_length=request["new_length"],
                write=made.write,
            )


class WholeFiles:
    """A peer whose package works on bytes: both files and what it makes are in memory at once."""

    def apply(self, request: dict[str, Any]) -> None:
        old, patch = (Path(request[name]).read_bytes() for name in ("old", "patch"))
        Path(request["made"]).write_bytes(self.patched(old, patch))

    def patched(self, old: bytes, patch: bytes) -> bytes:
        raise NotImplementedError


class Bsdiff(WholeFiles):
    def __init__(self) -> None:
        import bsdiff4

        self._tool = bsdiff4

    def make(self, old: bytes, new: bytes) -> bytes:
        return self._tool.diff(old, new)

    def patched(self, old: bytes, patch: bytes) -> bytes:
        return self._tool.patch(old, patch)


class Hdiffpatch(WholeFiles):
    """The smaller one of zstd and LZMA2, each at its best; one search for matches serves both."""

    def __init__(self) -> None:
        import hdiffpatch

        self._tool = hdiffpatch

    def make(self, old: bytes, new: bytes) -> bytes:
        tool = self._tool
        zstd = tool.diff(old, new, tool.ZStdConfig(level=22, window=MAX_WINDOW_LOG), validate=False)
        lzma = tool.recompress(zstd, tool.Lzma2Config(level=9, window=LZMA_WINDOW_LOG))
        return min(zstd, lzma, key=len)

    def patched(self, old: bytes, patch: bytes) -> bytes:
        return self._tool.apply(old, patch)


class PatchFrom(WholeFiles):
    """zstd's patch-from: the old file as the content before the new one, in a window that holds both."""

    def __init__(self) -> None:
        import zstandard

        self._tool = zstandard

    def _before(self, old: bytes) -> Any:
        return self._tool.ZstdCompressionDict(old, dict_type=self._tool.DICT_TYPE_RAWCONTENT)

    def make(self, old: bytes, new: bytes) -> bytes:
        window = min(MAX_WINDOW_LOG, max(10, (len(old) + len(new)).bit_length()))
        parameters = self._tool.ZstdCompressionParameters.from_level(
            ZSTD_LEVEL, window_log=window, source_size=len(new), dict_size=len(old), enable_ldm=True
        )
        return self._tool.ZstdCompressor(dict_data=self._before(old), compression_params=parameters).compress(new)

    def patched(self, old: bytes, patch: bytes) -> bytes:
        tool = self._tool.ZstdDecompressor(dict_data=self._before(old), max_window_size=1 << MAX_WINDOW_LOG)
        return tool.decompress(patch)


TOOLS: dict[str, Callable[[], Tool]] = {
    "edgeship": Edgeship,
    "bsdiff4": Bsdiff,
    "hdiffpatch": Hdiffpatch,
    "zstd_patch_from": PatchFrom,
}


def answer(tool: Tool, request: dict[str, Any]) -> dict[str, float | None]:
    """``make``: seconds. ``apply``: milliseconds. ``memory``: bytes of resident memory before, and at most while it is
    applied; None where the system does not say."""
    if request["do"] == "make":
        begin = time.perf_counter()
        patch = tool.make(Path(request["old"]).read_bytes(), Path(request["new"]).read_bytes())
        seconds = time.perf_counter() - begin
        Path(request["patch"]).write_bytes(patch)
        return {"seconds": seconds}
    if request["do"] == "apply":
        begin = time.perf_counter()
        tool.apply(request)
        return {"ms": (time.perf_counter() - begin) * 1e3}
    try:
        CLEAR.write_text("5", encoding="ascii")  # forgets the peak so far
    except OSError:
        tool.apply(request)
        return {"before": None, "peak": None}
    before = _bytes("VmRSS:")
    tool.apply(request)
    return {"before": before, "peak": _bytes("VmHWM:")}


def _bytes(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{STATUS} has no {field}")


def main(name: str) -> None:
    tool = TOOLS[name]()
    for line in sys.stdin:
        print(json.dumps(answer(tool, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
