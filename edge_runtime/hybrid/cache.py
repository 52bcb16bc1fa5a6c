"""Answers of the cloud, kept for the time when it cannot be asked. Bounded by bytes and by age."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.hybrid.client import CloudAnswer

__all__ = ["AnswerCache", "request_digest"]

ENTRY_OVERHEAD = 512  # bytes of Python objects around an entry's arrays, roughly


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: CloudAnswer
    stored: float
    size: int


class AnswerCache:
    """Least recently used answers by (release, digest of the request). Thread-safe.

    ``now`` is any clock that does not step back, in seconds. The digest is seeded afresh in every process, so nobody
    can prepare inputs that collide.
    """

    def __init__(self, max_bytes: int, max_age_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[int, bytes], _Entry] = OrderedDict()
        self._bytes = 0
        self._seed = os.urandom(16)

    def key(self, release: int, inputs: Mapping[str, NDArray[Any]]) -> tuple[int, bytes]:
        return release, request_digest(inputs, self._seed)

    def get(self, key: tuple[int, bytes], now: float) -> CloudAnswer | None:
        """The answer kept for ``key``, with arrays of its own, unless it is too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if now - entry.stored > self._max_age_s:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
        return entry.answer.copy()

    def put(self, key: tuple[int, bytes], answer: CloudAnswer, now: float) -> None:
        """Keep a copy of ``answer``; the least recently used ones make room. One that is too large is not kept."""
        size = ENTRY_OVERHEAD + sum(array.nbytes for array in answer.outputs.values())
        if size > self._max_bytes:
            return
        entry = _Entry(answer.copy(), now, size)
        with self._lock:
            if key in self._entries:
                self._drop(key)
            self._entries[key] = entry
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, key: tuple[int, bytes]) -> None:
        self._bytes -= self._entries.pop(key).size


def request_digest(inputs: Mapping[str, NDArray[Any]], seed: bytes) -> bytes:
    """16 bytes over names, dtypes, shapes and values. XXH3 where the xxhash package is installed, SHA-256 otherwise."""
    digest = _hasher()(seed)
    for name in sorted(inputs):
        array = inputs[name]
        # Lengths and kinds go in too, so that no two requests are the same bytes.
        digest.update(f"{len(name)}:{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.data if array.flags.c_contiguous else array.tobytes())
    return bytes(digest.digest()[:16])


def _hasher() -> Callable[[bytes], Any]:
    global _chosen
    if _chosen is None:
        if find_spec("xxhash") is not None:
            import xxhash

            _chosen = xxhash.xxh3_128
        else:
            _chosen = hashlib.sha256
    return _chosen


_chosen: Callable[[bytes], Any] | None = None
