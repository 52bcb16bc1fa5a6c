"""Work in a forked child: it may be killed, may end without a word, and costs milliseconds, since all is imported."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Ended", "in_child"]

T = TypeVar("T")
LIMIT_S = 120  # a child that hangs is a device that does not start


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Generic[T]):
    """How a child ended: its exit ``status``, negative for a signal; what it gave; the last lines of its error."""

    status: int
    value: T | None
    error: str


def in_child(work: Callable[[], T]) -> Ended[T]:
    """Run ``work`` in a child of this process, which must have no other threads."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(work, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    value, error = pickle.loads(data) if data else (None, "")
    return Ended(status=os.waitstatus_to_exitcode(status), value=value, error=error)


def _child(work: Callable[[], T], pipe: int) -> None:
    status = 1
    try:
        signal.alarm(LIMIT_S)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)  # a device that is cut off logs a lot
        result: tuple[T | None, str] = work(), ""
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        result = None, traceback.format_exc(limit=-4)
    finally:
        with os.fdopen(pipe, "wb") as out:
            out.write(pickle.dumps(result))
        os._exit(status)
