"""Runs one step in a process of its own, since quantizers crash; what went wrong becomes one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["attempt", "reason_of"]

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 400.0
LONGEST = 200
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def attempt(
    *command: str | Path, module: bool = True, limit_s: float = LIMIT_S, fine: tuple[int, ...] = (0,)
) -> str | None:
    """Run ``python -m`` with these arguments (or a program); None if it went well, else the reason in a line."""
    start = [sys.executable, "-m"] if module else []
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environ = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": "1"}
    parts = [str(part.resolve()) if isinstance(part, Path) else part for part in command]
    # In a folder of its own: some tools leave files where they stand.
    with (
        tempfile.TemporaryDirectory(prefix="edgeship-peer-") as folder,
        subprocess.Popen(
            [*start, *parts],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environ,
            start_new_session=True,
        ) as process,
    ):
        try:
            _, stderr = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what it started must not go on measuring beside the next one
            return f"did not end within {limit_s:g} s"
    return None if process.returncode in fine else reason_of(process.returncode, stderr)


def reason_of(code: int, stderr: str) -> str:
    """The signal, the exception that ended it, or the last line that says something; at most 200 characters."""
    if code < 0:
        return f"crashed: {signal.Signals(-code).name}"
    _, traceback, after = COLOR.sub("", stderr).rpartition("Traceback (most recent call last):")
    lines = [line for line in after.splitlines() if line.strip()]
    raised = [line for line in lines if traceback and not line.startswith(" ")]  # the first one; then its own notes
    told = [line for line in lines if line.startswith("error")]
    reason = next(iter(raised), (told or lines or [f"exit code {code}"])[-1])
    return reason.strip()[:LONGEST]
