"""Sixth stage, once an artifact: how much memory loading and running it takes beyond the engine itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.engines import open_engine
from converters.progress import Say
from converters.quiet import load_tool
from converters.stages.files import read_data
from converters.stages.sources import SourceInfo

__all__ = ["Job", "Result", "run"]

ENGINES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert.interpreter"}
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    target: str
    file: str
    info: SourceInfo
    work: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Bytes; None where the engine does not run here, or the system does not say."""

    peak_bytes: int | None


def run(job: Job, say: Say) -> Result:
    """Peak resident memory while the artifact is loaded and answers three times, less what the imported engine had.

    Only in a process of its own does it mean anything.
    """
    if job.target not in ENGINES or not STATUS.is_file():
        return Result(peak_bytes=None)
    load_tool(ENGINES[job.target])
    rows = read_data(job.work, "evaluation")
    assert rows is not None
    one = {name: array[:1] for name, array in rows.inputs.items()}
    del rows
    data = Path(job.file).read_bytes()
    try:
        CLEAR.write_text("5", encoding="ascii")  # forgets the peak so far
    except OSError:
        return Result(peak_bytes=None)
    before = _kilobytes("VmRSS:") - len(data) // 1024
    call = open_engine(job.target, data, job.info.inputs, job.info.outputs).caller(one)
    assert call is not None
    for _ in range(3):
        call()
    return Result(peak_bytes=max(0, _kilobytes("VmHWM:") - before) * 1024)


def _kilobytes(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0
