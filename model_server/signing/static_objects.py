"""What devices fetch, where it lies in an object store. The answers are those of `static`.

Metadata is small: it is mirrored into a folder of this server as it is asked for, and served from there. Its versioned
files never change, and ``timestamp.json`` is asked for again after a second, once for all who wait. Targets pass
through in pieces. A CDN in front of the store itself spares all of this.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_server.errors import NotStored, StorageUnavailable
from model_server.files import write_atomic
from model_server.signing.repository import METADATA, TARGETS
from model_server.signing.static import METADATA_NAME, NOT_ALLOWED, NOT_FOUND, TARGET_NAME, answer_target, head
from model_server.storage.protocol import Storage

__all__ = ["MirroredMetadata", "StoredTargets"]

FRESH_S = 1.0
MAX_MISSING = 4096  # names that were not there, remembered for a second


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
        name = scope["path"].removeprefix("/metadata/")
        if METADATA_NAME.fullmatch(name):
            try:
                await self._bring(name)
            except (StorageUnavailable, OSError):
                await _send(send, _AWAY)
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
    """Serves ``/targets/<folders>/<sha256>.<name>`` out of ``storage``, with ranges, so that a download can resume."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        name = scope["path"].removeprefix("/targets/")
        match = TARGET_NAME.fullmatch(name)
        if method not in ("GET", "HEAD"):
            await _send(send, NOT_ALLOWED)
            return
        if match is None or ".." in name:
            await _send(send, NOT_FOUND)
            return
        try:
            size = await run_in_threadpool(self._storage.size, TARGETS + name)
        except StorageUnavailable:
            await _send(send, _AWAY)
            return
        if size is None:
            await _send(send, NOT_FOUND)
            return
        etag = f'"{match[1]}"'.encode()
        start, part = answer_target(method, scope["headers"], etag, size, json=name.endswith(".json"))
        await send(start)
        if part is not None and part[0] < part[1]:
            async for piece in iterate_in_threadpool(self._storage.pieces(TARGETS + name, *part)):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _send(send: Send, start: Message) -> None:
    await send(start)
    await send({"type": "http.response.body", "body": b""})


_AWAY = head(503, [(b"retry-after", b"5"), (b"content-length", b"0")])
