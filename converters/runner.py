"""Runs stages: each in a process of its own, or all in this one.

A worker that crashes, runs out of memory or out of time becomes `StageFailed`, which names the stage. The parent loads
no engine and no converter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol

from converters.crossing import error_from_json, from_json, stage_module, to_json
from converters.errors import StageFailed
from converters.progress import Say
from converters.worker import JOB_FILE, RESULT_FILE

__all__ = ["WORKERS", "InProcess", "Runner", "Subprocesses"]

WORKERS = 2  # stages at once; each takes a processor and a gigabyte
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
           "TF_NUM_INTRAOP_THREADS")  # fmt: skip

TAIL = 2000  # characters of a worker's output that an error carries
DEFAULT_TIMEOUT_S = 3600.0
STOPPED = "stopped, because the work that it belongs to has ended"


class Runner(Protocol):
    """`run` gives the stage's result, or raises what the stage raised. ``what`` names the work in errors. `stop` ends
    the stages that run, and refuses those that other threads begin later."""

    def run(self, stage: str, job: Any, *, what: str, say: Say) -> Any: ...

    def stop(self) -> None: ...


class InProcess:
    """All stages in this process: for models that live only here, at the price of their crashes."""

    def run(self, stage: str, job: Any, *, what: str, say: Say) -> Any:
        return stage_module(stage).run(job, say)

    def stop(self) -> None:
        """A stage in this process ends by the exception that ends the process's work."""


class Subprocesses:
    """A fresh process for each stage. ``folder`` takes their jobs and logs."""

    def __init__(self, folder: Path, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._running:
                worker.kill()

    def run(self, stage: str, job: Any, *, what: str, say: Say) -> Any:
        folder = Path(tempfile.mkdtemp(prefix=f"{stage.rpartition('.')[2]}-", dir=self._folder))
        (folder / JOB_FILE).write_text(to_json(job), encoding="utf-8")
        log = folder / "log.txt"
        with log.open("wb") as sink, self._lock:
            if self._stopped:
                raise StageFailed(what, STOPPED)
            worker = subprocess.Popen(
                [sys.executable, "-m", "converters.worker", stage, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=_environment(folder),
                text=True,
            )
            self._running.add(worker)
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            worker.kill()

        timer = threading.Timer(self._timeout_s, end)
        timer.start()
        try:
            assert worker.stdout is not None
            told = [error for line in worker.stdout if (error := _heard(line, say))]
            code = worker.wait()
        except BaseException:
            worker.kill()
            worker.wait()
            raise
        finally:
            timer.cancel()
            with self._lock:
                self._running.discard(worker)
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
        if (folder / RESULT_FILE).is_file() and code == 0:
            result_type = stage_module(stage).Result
            return from_json((folder / RESULT_FILE).read_text(encoding="utf-8"), result_type)
        if told:
            raise error_from_json(told[-1])
        if self._stopped:
            raise StageFailed(what, STOPPED)
        why = f"took more than {self._timeout_s:g} s" if timed_out.is_set() else _why(code)
        raise StageFailed(what, f"its process {why}", tool_output=_tail(log))


def _environment(folder: Path) -> dict[str, str]:
    """This process's environment, so that the worker imports the same code from whatever folder it was started in, and
    what tools forget to delete goes with the stage's own ``folder``.

    Workers share the processors: a BLAS of as many threads as there are processors, twice, waits for itself most of the
    time. What the user has set stays.
    """
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    threads = str(max(1, (os.cpu_count() or 1) // WORKERS))
    return {
        **dict.fromkeys(THREADS, threads),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TMPDIR": str(folder),
    }


def _heard(line: str, say: Say) -> str | None:
    """Passes progress on; an error's text is returned."""
    try:
        heard = json.loads(line)
        if isinstance(heard, dict):
            return line if {"type", "message", "fields"} <= set(heard) else None
        text, done, total = heard
    except (ValueError, TypeError):
        return None  # what a tool printed before the worker took its output away
    say(str(text), int(done), int(total))
    return None


def _why(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed; most often the machine ran out of memory"
    if code < 0:
        try:
            return f"crashed with {signal.Signals(-code).name}"
        except ValueError:
            return f"crashed with signal {-code}"
    return f"ended with exit code {code}"


def _tail(log: Path) -> str:
    data = log.read_bytes()[-TAIL:]
    return data.decode(errors="replace").strip()
