"""The first time that a new artifact is loaded: in a process of its own, with a limit on memory and time.

A model file can crash an engine, hang it or make it take all memory. Better here than in the application:

    python -m edge_runtime.update.canary SLOT_DIR ARTIFACT MANIFEST_SHA256

loads the artifact, runs its golden examples, and exits with 0 if every decision is right and every output near enough.
One JSON line on standard output says what happened, for people.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import EdgeshipError, EngineMissing, Outcome, UpdateError

if TYPE_CHECKING:
    from edge_runtime.store import Slot

__all__ = ["main", "run_canary"]

TIMEOUT_S = 120.0
_ENGINE_BYTES = 2 << 30  # address space, not memory: an engine maps its libraries and arenas
_PASSED, _FAILED, _NO_ENGINE = 0, 1, 4


def run_canary(slot: Slot, *, timeout_s: float = TIMEOUT_S) -> None:
    """Run the canary on a slot. Raises `UpdateError` with ``CANARY_FAILED`` if the artifact fails, crashes its process
    or does not end in time, ``INCOMPATIBLE`` if its engine is not installed, and ``STORE_FAILED`` if no process could
    be started."""
    import subprocess

    command = [sys.executable, "-P", "-m", "edge_runtime.update.canary"]
    command += [str(slot.path), slot.artifact.file, slot.manifest_sha256]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout_s, env=_environment(), check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(slot, f"it did not end within {timeout_s:g} s") from error
    except OSError as error:
        raise UpdateError(Outcome.STORE_FAILED, f"the canary process could not be started: {error}") from error
    if done.returncode == _PASSED:
        return
    detail = _detail(done.stdout)
    if done.returncode == _NO_ENGINE:
        raise UpdateError(Outcome.INCOMPATIBLE, detail or "its engine is not installed")
    raise _failed(slot, detail or f"its process ended with {done.returncode}")


def main(arguments: Sequence[str], *, limit: Callable[[int], None]) -> int:
    """The child: ``SLOT_DIR ARTIFACT MANIFEST_SHA256``. ``limit`` is told how many bytes the model may take. Returns
    the exit status."""
    folder, artifact, digest = arguments
    try:
        detail = _check(Path(folder), artifact, digest, limit)
    except EngineMissing as error:
        return _say(str(error), _NO_ENGINE)
    except EdgeshipError as error:
        return _say(f"{type(error).__name__}: {error}", _FAILED)
    except MemoryError:
        return _say("it needs more memory than a model of its size may", _FAILED)
    return _say("passed", _PASSED) if detail is None else _say(detail, _FAILED)


def _check(folder: Path, artifact: str, digest: str, limit: Callable[[int], None]) -> str | None:
    """None if the artifact is good, else why not."""
    from edge_runtime import golden
    from edge_runtime.session import Session
    from edge_runtime.store import open_slot

    slot = open_slot(folder, artifact, digest)
    limit(_ENGINE_BYTES + 8 * slot.artifact.bytes + 4 * (slot.artifact.peak_memory_bytes or 0))
    examples = golden.read(slot.read_golden())
    session = Session.load(slot.manifest, slot.artifact, slot.read_artifact())
    try:
        result = golden.check(session, examples)
    finally:
        session.close()
    return None if result.passed else result.detail


def _limit_memory(more: int) -> None:
    """Let this process take ``more`` bytes of address space, where the system can count it. Best effort: the time limit
    stands anyway."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError, ValueError, IndexError):
        return
    limit = pages * resource.getpagesize() + more
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _environment() -> dict[str, str]:
    """The child must find this package wherever it was imported from, and needs one thread."""
    paths = [os.environ.get("PYTHONPATH", "")]
    parent = Path(__file__).resolve().parents[2]
    if parent.name not in ("site-packages", "dist-packages"):  # those it finds, and must not find before the library
        paths.insert(0, str(parent))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _say(detail: str, status: int) -> int:
    sys.stdout.write(json.dumps({"passed": status == _PASSED, "detail": detail}) + "\n")
    return status


def _detail(output: bytes) -> str:
    """What the child said last; its own words only where it said them properly."""
    try:
        said = json.loads(output.strip().splitlines()[-1])
        return str(said["detail"])[:500]
    except (IndexError, ValueError, KeyError, TypeError):
        return ""


def _failed(slot: Slot, why: str) -> UpdateError:
    return UpdateError(Outcome.CANARY_FAILED, f"release {slot.release}, {slot.artifact.file}: {why}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], limit=_limit_memory))
