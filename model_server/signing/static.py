"""What devices fetch, as two small ASGI apps: metadata out of memory, targets from disk with byte ranges.

Everything here is public, signed and cacheable, so it needs no credential. Versioned metadata and targets never change
(their names hold the version or the digest); ``timestamp.json`` is the one file that a cache must ask about again.

A check of a device is one conditional GET of the timestamp, so that path is short: a look-up, one ``stat``, and an
answer that was made beforehand. Nothing of a web framework takes part.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from starlette.types import Message, Receive, Scope, Send

from model_server.signing.http_fields import Unsatisfiable, accepts_gzip, byte_range, field, matches
from model_server.storage.protocol import CACHE_FRESH, CACHE_IMMUTABLE

__all__ = [
    "METADATA_NAME",
    "NOT_ALLOWED",
    "NOT_FOUND",
    "TARGET_NAME",
    "MetadataFiles",
    "TargetFiles",
    "answer_target",
    "head",
]

IMMUTABLE = CACHE_IMMUTABLE.encode()
FRESH = CACHE_FRESH.encode()
MAX_CACHED_BYTES = 64 * 2**20
MIN_GZIP_BYTES = 512  # below this, gzip saves less than its own header costs in time
CHUNK_BYTES = 256 * 2**10  # of a large target, read by a thread: a disk may be slow
_JSON = (b"content-type", b"application/json")
METADATA_NAME = re.compile(r"(?:timestamp|[1-9][0-9]{0,9}\.[a-z0-9-]{1,80})\.json")
TARGET_NAME = re.compile(r"(?:[A-Za-z0-9-][A-Za-z0-9._-]{0,200}/){1,4}([0-9a-f]{64})\.[A-Za-z0-9._-]{1,130}")

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Variant:
    """A file in one content coding, as the two answers that it can give."""

    whole: Message
    unchanged: Message
    body: Message


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in memory; ``signature`` says which file on disk it was read from."""

    signature: tuple[int, int, int]
    etags: tuple[bytes, ...]
    plain: _Variant
    packed: _Variant | None
    bytes: int


class MetadataFiles:
    """Serves ``/metadata/<name>``. Files are kept in memory, plain and compressed, until the file on disk is another.

    Runs on the event loop: a hit costs one ``stat``, a miss one read of a small file.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._folder = f"{folder}{os.sep}"
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            await _send(send, NOT_ALLOWED, _EMPTY)
            return
        entry = self._entry(scope["path"].removeprefix("/metadata/"))
        if entry is None:
            await _send(send, NOT_FOUND, _EMPTY)
            return
        headers = scope["headers"]
        variant = entry.plain
        if entry.packed is not None and accepts_gzip(field(headers, b"accept-encoding") or b""):
            variant = entry.packed
        known = field(headers, b"if-none-match")
        if known is not None and matches(known, entry.etags):
            await _send(send, variant.unchanged, _EMPTY)
        else:
            await _send(send, variant.whole, _EMPTY if method == "HEAD" else variant.body)

    def _entry(self, name: str) -> _Entry | None:
        entry = self._entries.get(name)
        if entry is None and not METADATA_NAME.fullmatch(name):
            return None
        path = self._folder + name
        try:
            status = os.stat(path)  # noqa: PTH116 (a Path for each request costs as much as the call)
            signature = (status.st_ino, status.st_mtime_ns, status.st_size)
            if entry is not None and entry.signature == signature:
                self._entries.move_to_end(name)
                return entry
            body = Path(path).read_bytes()
        except OSError:
            return None
        entry = _make_entry(signature, body, FRESH if name == "timestamp.json" else IMMUTABLE)
        self._remember(name, entry)
        return entry

    def _remember(self, name: str, entry: _Entry) -> None:
        old = self._entries.pop(name, None)
        self._bytes += entry.bytes - (old.bytes if old else 0)
        self._entries[name] = entry
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            self._bytes -= self._entries.popitem(last=False)[1].bytes


class TargetFiles:
    """Serves ``/targets/<folders>/<sha256>.<name>``, with ranges, so that a download can resume."""

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}{os.sep}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            await _send(send, NOT_ALLOWED, _EMPTY)
            return
        name = scope["path"].removeprefix("/targets/")
        match = TARGET_NAME.fullmatch(name)
        if match is None or ".." in name:
            await _send(send, NOT_FOUND, _EMPTY)
            return
        with _opened(self._folder + name) as found:
            if found is None:
                await _send(send, NOT_FOUND, _EMPTY)
                return
            file, size = found
            etag = f'"{match[1]}"'.encode()
            start, part = answer_target(method, scope["headers"], etag, size, json=name.endswith(".json"))
            if part is None:
                await _send(send, start, _EMPTY)
                return
            await send(start)
            await _send_part(file, part, receive, send)


def answer_target(
    method: str, headers: Fields, etag: bytes, size: int, *, json: bool
) -> tuple[Message, tuple[int, int] | None]:
    """The head of the answer for a target, and the part of the file that follows; None for nothing."""
    fields = [(b"etag", etag), (b"cache-control", IMMUTABLE), (b"accept-ranges", b"bytes")]
    known = field(headers, b"if-none-match")
    if known is not None and matches(known, (etag,)):
        return head(304, fields), None
    wanted, only_if = field(headers, b"range"), field(headers, b"if-range")
    status, part = 200, (0, size)
    if method == "GET" and wanted is not None and only_if in (None, etag):  # If-Range asks for strong comparison
        try:
            span = byte_range(wanted, size)
        except Unsatisfiable:
            fields += [(b"content-range", b"bytes */%d" % size), (b"content-length", b"0")]
            return head(416, fields), None
        if span is not None:
            status, part = 206, span
            fields.append((b"content-range", b"bytes %d-%d/%d" % (part[0], part[1] - 1, size)))
    fields.append(_JSON if json else (b"content-type", b"application/octet-stream"))
    fields.append((b"content-length", b"%d" % (part[1] - part[0])))
    return head(status, fields), part if method == "GET" else None


async def _send_part(file: BinaryIO, part: tuple[int, int], receive: Receive, send: Send) -> None:
    """A short part is read at once; a long one by a thread, for as long as somebody is there to take it."""
    position, end = part
    if end - position <= CHUNK_BYTES:
        file.seek(position)
        await send({"type": "http.response.body", "body": file.read(end - position)})
        return
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        file.seek(position)
        while position < end and not gone.done():
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - position))
            if not chunk:
                raise OSError(f"{file.name} ends at {position}, before {end}: it is damaged")
            position += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": position < end})
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, int] | None]:
    """A regular file and its size in bytes; None where there is none. A link is not followed."""
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        yield None
        return
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor, no path)
        yield file, status.st_size


def _make_entry(signature: tuple[int, int, int], body: bytes, cache: bytes) -> _Entry:
    etag = hashlib.sha256(body).hexdigest()[:32].encode()
    fields = [(b"cache-control", cache)]
    if len(body) < MIN_GZIP_BYTES:
        plain = _variant(body, b'"%b"' % etag, fields)
        return _Entry(signature, (b'"%b"' % etag,), plain, None, len(body))
    fields.append((b"vary", b"accept-encoding"))
    packed = gzip.compress(body, 9, mtime=0)
    etags = (b'"%b"' % etag, b'"%b-gzip"' % etag)
    return _Entry(
        signature,
        etags,
        _variant(body, etags[0], fields),
        _variant(packed, etags[1], fields, (b"content-encoding", b"gzip")),
        len(body) + len(packed),
    )


def _variant(body: bytes, etag: bytes, fields: Fields, *of_body: tuple[bytes, bytes]) -> _Variant:
    both = [(b"etag", etag), *fields]
    return _Variant(
        whole=head(200, [*both, _JSON, (b"content-length", b"%d" % len(body)), *of_body]),
        unchanged=head(304, both),
        body={"type": "http.response.body", "body": body},
    )


def head(status: int, headers: Sequence[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _send(send: Send, start: Message, body: Message) -> None:
    await send(start)
    await send(body)


_EMPTY: Message = {"type": "http.response.body", "body": b""}
NOT_FOUND = head(404, [(b"content-length", b"0")])
NOT_ALLOWED = head(405, [(b"allow", b"GET, HEAD"), (b"content-length", b"0")])
