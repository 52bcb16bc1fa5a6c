"""What devices fetch, as two small ASGI apps: metadata out of memory, targets from disk with byte ranges.

Everything here is public, signed and cacheable, so it needs no credential. Versioned metadata and targets never change
(their names hold the version or the digest); ``timestamp.json`` is the one file that a cache must ask about again.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

__all__ = ["MetadataFiles", "TargetFiles"]

IMMUTABLE = "public, max-age=31536000, immutable"
FRESH = "public, max-age=5"
MAX_CACHED_BYTES = 64 * 2**20
MIN_GZIP_BYTES = 512  # below this, gzip saves less than its own header costs in time
_METADATA_NAME = re.compile(r"(?:timestamp|[1-9][0-9]{0,9}\.[a-z0-9-]{1,80})\.json")
_TARGET_NAME = re.compile(r"(?:[A-Za-z0-9-][A-Za-z0-9._-]{0,200}/){1,4}([0-9a-f]{64})\.[A-Za-z0-9._-]{1,130}")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in memory; ``signature`` says which file on disk it was read from."""

    signature: tuple[int, int, int]
    body: bytes
    packed: bytes | None
    etag: str


class MetadataFiles:
    """Serves ``metadata/<name>``. Files are kept in memory, plain and compressed, until the file on disk is another.

    Runs on the event loop: a hit costs one ``stat``, a miss one read of a small file.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._folder = folder
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._respond(scope)(scope, receive, send)

    def _respond(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"allow": "GET, HEAD"})
        name = str(scope["path"]).rpartition("/")[2]
        entry = self._entry(name) if _METADATA_NAME.fullmatch(name) else None
        if entry is None:
            return Response(status_code=404)
        request = Headers(scope=scope)
        packed = entry.packed is not None and _accepts_gzip(request.get("accept-encoding", ""))
        etag = f'"{entry.etag}-gzip"' if packed else f'"{entry.etag}"'
        headers = {
            "etag": etag,
            "cache-control": FRESH if name == "timestamp.json" else IMMUTABLE,
            "vary": "accept-encoding",
        }
        if _matches(request.get("if-none-match"), (f'"{entry.etag}"', f'"{entry.etag}-gzip"')):
            return Response(status_code=304, headers=headers)
        body = entry.body
        if packed and entry.packed is not None:
            body = entry.packed
            headers["content-encoding"] = "gzip"
        return _response(scope, body, headers)

    def _entry(self, name: str) -> _Entry | None:
        path = self._folder / name
        try:
            status = path.stat()
        except OSError:
            return None
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        entry = self._entries.get(name)
        if entry is not None and entry.signature == signature:
            self._entries.move_to_end(name)
            return entry
        try:
            body = path.read_bytes()
        except OSError:
            return None
        packed = gzip.compress(body, 6, mtime=0) if len(body) >= MIN_GZIP_BYTES else None
        entry = _Entry(signature, body, packed, hashlib.sha256(body).hexdigest()[:32])
        self._remember(name, entry)
        return entry

    def _remember(self, name: str, entry: _Entry) -> None:
        old = self._entries.pop(name, None)
        self._bytes += _size(entry) - (_size(old) if old else 0)
        self._entries[name] = entry
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            self._bytes -= _size(self._entries.popitem(last=False)[1])


class TargetFiles:
    """Serves ``targets/<folders>/<sha256>.<name>``, with ranges, so that a download can resume."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await Response(status_code=405, headers={"allow": "GET, HEAD"})(scope, receive, send)
            return
        name = str(scope["path"]).partition("/targets/")[2]
        match = _TARGET_NAME.fullmatch(name)
        path = self._folder / name
        status = _regular(path) if match and ".." not in name else None
        if match is None or status is None:
            await Response(status_code=404)(scope, receive, send)
            return
        etag = f'"{match.group(1)}"'
        headers = {"etag": etag, "cache-control": IMMUTABLE}
        if _matches(Headers(scope=scope).get("if-none-match"), (etag,)):
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        media = "application/json" if name.endswith(".json") else "application/octet-stream"
        await FileResponse(path, headers=headers, media_type=media, stat_result=status)(scope, receive, send)


def _response(scope: Scope, body: bytes, headers: dict[str, str]) -> Response:
    if scope["method"] == "HEAD":
        response = Response(headers=headers, media_type="application/json")
        response.headers["content-length"] = str(len(body))
        return response
    return Response(body, headers=headers, media_type="application/json")


def _regular(path: Path) -> os.stat_result | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _matches(header: str | None, etags: tuple[str, ...]) -> bool:
    """RFC 9110, 13.1.2: weak comparison against a list, or ``*``."""
    if header is None:
        return False
    return any(tag.strip().removeprefix("W/") in (*etags, "*") for tag in header.split(","))


def _accepts_gzip(header: str) -> bool:
    for item in header.lower().split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip() in ("gzip", "*"):
            quality = parameters.replace(" ", "").removeprefix("q=")
            return quality not in ("0", "0.0", "0.00", "0.000")
    return False


def _size(entry: _Entry) -> int:
    return len(entry.body) + len(entry.packed or b"")
