"""The tools, each in an environment and process of its own. `python -m bench.peers_delta.tools` installs the peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.peers_quantize.process import reason_of
from bench.real_models.packages import environment

__all__ = ["OURS", "PEERS", "Peer", "ToolFailed", "Worker", "install"]

OURS = "edgeship"
ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).parent / "scripts" / "worker.py"
LIMIT_S = 400.0  # of one request


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """``name`` is what the worker and the rows call it."""

    name: str
    requirements: tuple[str, ...]


PEERS = (
    Peer(name="bsdiff4", requirements=("bsdiff4==1.3.2",)),
    Peer(name="hdiffpatch", requirements=("hdiffpatch==2.6.0", "attrs==26.1.0")),
    Peer(name="zstd_patch_from", requirements=("zstandard==0.25.0",)),
)


class ToolFailed(Exception):
    """A tool could not be installed, crashed or took too long; the text says which, in a line."""


def install(peer: Peer) -> Path:
    """The Python of the peer's environment, made if it is not there. Raises `ToolFailed`."""
    try:
        return environment(f"delta-{peer.requirements[0].split('==')[0]}", peer.requirements)
    except SystemExit as error:
        raise ToolFailed(f"not installed: {' '.join(str(error).split())[-200:]}") from error


class Worker:
    """A process of one tool that answers requests, see `scripts/worker.py`. To be used in a ``with``."""

    def __init__(self, name: str, python: Path) -> None:
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        if name == OURS:
            environ["PYTHONPATH"] = str(ROOT)
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [str(python), str(WORKER), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def ask(self, do: str, limit_s: float = LIMIT_S, **request: Any) -> Mapping[str, Any]:
        """What it answers. Raises `ToolFailed`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(limit_s, stop)
        timer.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            return dict(json.loads(line))
        code = self._process.wait()
        if late.is_set():
            raise ToolFailed(f"did not end within {limit_s:g} s")
        self._stderr.seek(0)
        raise ToolFailed(reason_of(code, self._stderr.read()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()


def main() -> int:
    """Install every peer; what cannot be is said, and left out of the bench's rows."""
    failed = 0
    for peer in PEERS:
        try:
            print(f"{peer.name}: {install(peer)}", flush=True)
        except ToolFailed as error:
            failed = 1
            print(f"{peer.name}: {error}", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
