"""Making patches in a process of its own: one takes a processor for seconds and ten times its files in memory, neither
of which a server that answers devices has to spare. It is killed when a patch takes too long or nobody wants it.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard

__all__ = ["Make", "MakerDied", "Patch", "PatchFailed", "PatchMaker"]

Make = Callable[[bytes, bytes], bytes]  # (old, new) → patch

FULL_LEVEL = 9  # of zstd, for the compressed file: higher ones gain a percent for ten times the time
LOOK_S = 0.2  # how often it is looked whether the patch is still wanted
NICE = 10  # devices first


class PatchFailed(Exception):
    """This patch could not be made, or does not make its file; others can be."""


class MakerDied(Exception):
    """The process is gone, most likely for want of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """``whole`` is the size of the new file, compressed without the old one, in bytes."""

    data: bytes
    whole: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    old: Path
    new: Path
    whole: int | None


class PatchMaker:
    """The process, started with the first patch and after each that was cut off. ``make`` is called in it (default:
    `make_delta`). Leaving the context ends it, whatever it does."""

    def __init__(self, make: Make | None = None) -> None:
        self._make = make
        self._context = get_context("spawn")
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def patch(self, old: Path, new: Path, whole: int | None, *, limit_s: float, check: Callable[[], None]) -> Patch:
        """A patch that turns ``old`` into ``new``, tried out as a device would. ``whole`` is `Patch.whole`, if it is
        known. ``check`` is called while it is made; what it raises ends the work.

        Raises: PatchFailed, also after ``limit_s`` seconds; MakerDied.
        """
        pipe, sentinel = self._started()
        deadline = time.monotonic() + limit_s
        answer: Patch | str
        try:
            pipe.send(_Order(old=old, new=new, whole=whole))
            while pipe not in (ready := wait([pipe, sentinel], timeout=LOOK_S)):
                if sentinel in ready:
                    raise EOFError
                check()
                if time.monotonic() > deadline:
                    self._end()
                    raise PatchFailed(f"it took longer than {limit_s:g} s")
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise MakerDied("the process that makes patches has died") from error
        if isinstance(answer, str):
            raise PatchFailed(answer)
        return answer

    def _started(self) -> tuple[Connection, int]:
        if self._process is None or self._pipe is None:
            self._pipe, other = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(other, self._make), daemon=True)
            self._process.start()
            other.close()
        return self._pipe, self._process.sentinel

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, make: Make | None) -> None:
    """In the other process: make what is ordered, until nobody orders any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the server says what to do
    os.nice(NICE)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):
        while True:
            order = pipe.recv()
            try:
                pipe.send(_patch(order, make))
            except MemoryError:
                os._exit(1)
            except Exception:  # noqa: BLE001 - whatever the codecs raise over two files, it is that patch's own matter
                pipe.send(traceback.format_exc())


def _end_with_parent() -> None:
    """A server that was killed must not leave minutes of work behind."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _patch(order: _Order, make: Make | None) -> Patch:
    from model_server.releases.delta.making import make_delta

    before, after = order.old.read_bytes(), order.new.read_bytes()
    whole = order.whole or len(zstandard.ZstdCompressor(level=FULL_LEVEL).compress(after))
    patch = (make or make_delta)(before, after)
    _try(before, after, patch)
    return Patch(data=patch, whole=whole)


def _try(before: bytes, after: bytes, patch: bytes) -> None:
    """Apply it as a device would. Raises where it does not make the file: a fleet must not be who finds out."""
    from edge_runtime.update.delta import DeltaDamaged, apply

    made = hashlib.sha256()
    apply(
        io.BytesIO(before),
        io.BytesIO(patch),
        old_sha256=hashlib.sha256(before).hexdigest(),
        old_length=len(before),
        new_length=len(after),
        write=made.update,
    )
    if made.digest() != hashlib.sha256(after).digest():
        raise DeltaDamaged("it makes other bytes than the file")
