"""A stage that ends as its job says: for tests of what becomes of a worker that does not end well."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.errors import UnsupportedOperator


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    end: str
    numbers: tuple[int | str, ...] = ()
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    process: int
    numbers: tuple[int | str, ...]
    worst: float


def run(job: Job, say: Callable[[str, int, int], None]) -> Result:
    print("a tool's own noise", flush=True)
    say("begun", 0, 2)
    if job.end == "crash":
        os.write(2, b"the last words of a library\n")
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.end == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.end == "hang":
        Path(job.file).write_text(str(os.getpid()))
        time.sleep(600)
    if job.end == "operator":
        raise UnsupportedOperator("Bessel", "no target has it")
    if job.end == "bug":
        raise ZeroDivisionError("in a tool")
    say("done", 1, 2)
    return Result(process=os.getpid(), numbers=job.numbers, worst=float("inf"))
