"""Server processes of a bench: started, pinned to one processor, asked for their processor time, and always ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "edgeship", "pinned", "started"]

START_S = 120.0  # of a server on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A server that answers on ``url``."""

    url: str
    pid: int

    def cpu_s(self) -> float | None:
        """Processor time that it has used, in seconds; None where the system does not say."""
        try:
            after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(command: Sequence[str], url: Callable[[], str | None], log: Path, cpu: int | None) -> Iterator[Process]:
    """Run ``command`` until the block ends. ``url`` gives its address once it answers, None before.

    Raises: RuntimeError if it does not start.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=pinned(cpu))
    try:
        deadline = time.monotonic() + START_S
        while (address := url()) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.05)
        yield Process(url=address, pid=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def edgeship(folder: Path, scratch: Path, cpu: int | None = None) -> Iterator[Process]:
    """`edgeship-server serve` of a server's folder."""
    ready = scratch / "ready"
    serve = [sys.executable, "-m", "model_server.cli", "serve", str(folder), "--port", "0"]

    def url() -> str | None:
        return ready.read_text().strip() if ready.exists() else None

    with started([*serve, "--ready-file", str(ready)], url, scratch / "edgeship.log", cpu) as process:
        yield process


def pinned(cpu: int | None) -> Callable[[], None] | None:
    """What pins a child to a processor, for `subprocess`; None where that cannot be, or need not."""
    if cpu is None or not hasattr(os, "sched_setaffinity") or cpu not in os.sched_getaffinity(0):
        return None
    return lambda: os.sched_setaffinity(0, {cpu})
