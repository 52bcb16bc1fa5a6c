"""What devices fetch, where it lies in an object store. The answers are those of `static`.

Metadata is small: it is mirrored into a folder of this server as it is asked for, and served from there. Its versioned
files never change, and ``timestamp.json`` is asked for again after a second, once for all who wait. Targets pass
through in pieces. A CDN in front of the store itself spares all of this.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from model_server.errors import NotStored, StorageUnavailable
from model_server.files import write_atomic
from model_server.signing.repository import METADATA, TARGETS
from model_server.storage.objects import CACHE_IMMUTABLE
from model_server.storage.protocol import Storage

__all__ = ["MirroredMetadata", "StoredTargets"]

FRESH_S = 1.0
MAX_MISSING = 4096  # names that were not there, remembered for a second
_METADATA_NAME = re.compile(r"(?:timestamp|[1-9][0-9]{0,9}\.[a-z0-9-]{1,80})\.json")
_TARGET_NAME = re.compile(r"(?:[A-Za-z0-9-][A-Za-z0-9._-]{0,200}/){1,4}([0-9a-f]{64})\.[A-Za-z0-9._-]{1,130}")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_RETRY = {"retry-after": "5"}


class MirroredMetadata:
    """Brings ``metadata/<name>`` from ``storage`` into ``folder``, which is emptied first, then lets ``files`` serve
    it."""

    def __init__(self, storage: Storage, folder: Path, files: ASGIApp) -> None:
        self._storage = storage
        self._folder = folder
        self._files = files
        self._coming: dict[str, asyncio.Future[None]] = {}
        self._asked: dict[str, float] = {}  # when the store was last asked for what may change or come
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = str(scope["path"]).rpartition("/")[2]
        if _METADATA_NAME.fullmatch(name):
            try:
                await self._bring(name)
            except (StorageUnavailable, OSError):
                await Response(status_code=503, headers=_RETRY)(scope, receive, send)
                return
        await self._files(scope, receive, send)

    async def _bring(self, name: str) -> None:
        if name != "timestamp.json" and (self._folder / name).exists():
            return
        if time.monotonic() < self._asked.get(name, 0.0) + FRESH_S:
            return
        coming = self._coming.get(name)
        if coming is None:
            coming = asyncio.ensure_future(run_in_threadpool(self._copy, name))
            self._coming[name] = coming
            coming.add_done_callback(lambda done: self._coming.pop(name, None))
        await asyncio.shield(coming)  # a client that goes away takes nothing from the others who wait

    def _copy(self, name: str) -> None:
        try:
            data = self._storage.read(METADATA + name).data
        except NotStored:
            data = None
        if data is not None and not self._holds(name, data):
            write_atomic(self._folder / name, data)
        if len(self._asked) >= MAX_MISSING:
            self._asked.clear()
        self._asked[name] = time.monotonic()

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return (self._folder / name).read_bytes() == data
        except FileNotFoundError:
            return False


class StoredTargets:
    """Serves ``targets/<folders>/<sha256>.<name>`` out of ``storage``, with a range, so that a download can resume."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._respond(scope))(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"allow": "GET, HEAD"})
        name = str(scope["path"]).partition("/targets/")[2]
        match = _TARGET_NAME.fullmatch(name)
        if match is None or ".." in name:
            return Response(status_code=404)
        try:
            size = await run_in_threadpool(self._storage.size, TARGETS + name)
        except StorageUnavailable:
            return Response(status_code=503, headers=_RETRY)
        if size is None:
            return Response(status_code=404)
        etag = f'"{match.group(1)}"'
        headers = {"etag": etag, "cache-control": CACHE_IMMUTABLE}
        request = Headers(scope=scope)
        if etag in (tag.strip().removeprefix("W/") for tag in request.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        wanted = _range(request, etag, size)
        start, end = wanted or (0, size)
        if start >= size > 0:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        headers |= {
            "accept-ranges": "bytes",
            "content-length": str(end - start),
            "content-type": "application/json" if name.endswith(".json") else "application/octet-stream",
        }
        if wanted is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        status = 200 if wanted is None else 206
        if scope["method"] == "HEAD":
            return Response(status_code=status, headers=headers)
        return StreamingResponse(self._pieces(TARGETS + name, start, end), status, headers)

    async def _pieces(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        if start == end:
            return
        async for piece in iterate_in_threadpool(self._storage.pieces(name, start, end)):
            yield piece


def _range(request: Headers, etag: str, size: int) -> tuple[int, int] | None:
    """Start and end of what is asked for. None for everything: where there is no range, or more than one, or it is of
    another file (RFC 9110, 13.1.5 and 14.2)."""
    match = _RANGE.fullmatch(request.get("range", "").replace(" ", ""))
    if match is None or request.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), min(size, int(last) + 1) if last else size
        return (start, end) if start < end or start >= size else None
    return (max(0, size - int(last)), size) if last and size else None
