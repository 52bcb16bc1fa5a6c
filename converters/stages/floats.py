"""Second stage, once a target: the source as a float32 file of that target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.onnx_file import opset_of
from converters.progress import Say
from converters.quiet import load_tool, quiet
from converters.routes import find_route, make_float
from converters.stages.files import model_file
from converters.stages.sources import SourceRef, open_ref

__all__ = ["Job", "Result", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    source: SourceRef
    target: str
    work: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``tools`` made the file, in ``environment`` (None: this one)."""

    file: str
    bytes: int
    tools: tuple[str, ...]
    environment: str | None
    notes: tuple[str, ...]


def run(job: Job, say: Say) -> Result:
    """Raises what `make_float` raises."""
    say(f"{job.target}: loading the source", 0, 2)
    source = open_ref(job.source)
    route = find_route(source.kind, job.target)
    say(f"{job.target}: converting ({' → '.join(route.tools) or 'passed through'})", 1, 2)
    made = make_float(source, job.target, say)
    file: Path = model_file(job.work, job.target, "float")
    file.write_bytes(made.data)
    return Result(
        file=str(file),
        bytes=len(made.data),
        tools=route.tools,
        environment=route.environment,
        notes=(*made.notes, *_stated(job.target, made.data)),
    )


def _stated(target: str, data: bytes) -> tuple[str, ...]:
    """What a reader of the file must support."""
    if target != "onnx":
        return ()
    with quiet("reading the ONNX model"):
        return (f"ONNX opset {opset_of(load_tool('onnx').load_from_string(data))}",)
