"""Fifth stage, once: the latency of all artifacts, in turns, and of each one twice, so that the noise is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.engines import open_engine
from converters.evaluate import interleaved_latency
from converters.progress import Say
from converters.stages.files import read_data
from converters.stages.sources import SourceInfo

__all__ = ["Job", "Latency", "Result", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``files`` maps ``target/precision`` to the artifact."""

    files: Mapping[str, str]
    info: SourceInfo
    work: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Median microseconds of one example, and the ratio of two such medians of the same artifact."""

    p50_us: float
    aa_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """By ``target/precision``; an engine that does not run here has none."""

    latencies: Mapping[str, Latency]


def run(job: Job, say: Say) -> Result:
    rows = read_data(job.work, "evaluation")
    assert rows is not None
    callers = {}
    for index, (kind, file) in enumerate(job.files.items()):
        say(f"latency: loading {kind}", index, len(job.files) + 1)
        target = kind.partition("/")[0]
        call = open_engine(target, Path(file).read_bytes(), job.info.inputs, job.info.outputs).caller(rows.inputs)
        if call is not None:
            callers[kind] = call
    say("latency: calls in turns", len(job.files), len(job.files) + 1)
    measured = interleaved_latency(callers)
    return Result(latencies={kind: Latency(p50_us=p50, aa_ratio=ratio) for kind, (p50, ratio) in measured.items()})
