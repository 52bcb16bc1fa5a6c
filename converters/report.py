"""report.json: what a conversion was asked for, what came of it for every target, and how each number was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from converters.errors import InvalidRequest
from converters.quantize.found import Tried
from converters.stages.choosing import Chosen
from converters.stages.describe import Split
from converters.stages.measure import Part
from converters.stages.sources import SourceInfo
from edge_runtime.bundle import KeptFloat
from edge_runtime.bundle.manifest import Metric, Precision, Target

__all__ = ["REPORT_FILE", "Report", "Row", "Status", "read_report", "report_dict", "write_report"]

REPORT_FILE = "report.json"
FORMAT = 2
Status = Literal["ok", "refused", "failed_gate", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One asked target × precision. What was not reached or not measured is None.

    ``precision`` is what was reached, ``asked`` what was asked for. ``accuracy`` is of ``metric``; ``drop`` is what the
    gate compared with its limit. ``int8_weight_share`` is the share of Conv, Gemm and MatMul weight elements stored as
    INT8; ``float_operators`` are the operator types that still compute in float in a quantized artifact.
    ``source_bytes`` is the size of the same target's fp32 file. ``golden_tolerance`` is how far a device's answers to
    the golden examples may be from these, ``golden_spread`` how far kernels here are from each other.
    """

    target: Target
    asked: Precision
    precision: Precision
    status: Status
    reason: str | None = None
    bytes: int | None = None
    source_bytes: int | None = None
    accuracy: float | None = None
    source_accuracy: float | None = None
    metric: Metric | None = None
    rows: int | None = None
    drop: float | None = None
    decision_agreement: float | None = None
    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    mismatched: int | None = None
    int8_weight_share: float | None = None
    float_operators: tuple[str, ...] = ()
    kept_float: tuple[KeptFloat, ...] = ()
    operators: tuple[str, ...] = ()
    recipe: str | None = None
    candidates: tuple[Tried, ...] = ()
    p50_us: float | None = None
    p50_aa_ratio: float | None = None
    peak_memory_bytes: int | None = None
    minimum_engine_version: str | None = None
    evaluated_with: str | None = None
    machine: str | None = None
    tools: tuple[str, ...] = ()
    environment: str | None = None
    notes: tuple[str, ...] = ()
    confidence: Chosen | None = None
    golden_examples: int | None = None
    golden_tolerance: float | None = None
    golden_spread: float | None = None
    segments: tuple[Part, ...] = ()
    edge_cases: tuple[Part, ...] = ()
    file: str | None = None
    sha256: str | None = None

    @property
    def kind(self) -> str:
        return f"{self.target}/{self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``splits`` is by its name; ``absent`` says what the bundle does not hold, and why; ``exit_code`` is the
    command's; ``bundle`` and its ``sha256`` are None where no artifact was ok."""

    name: str
    release: int
    created: str
    source: SourceInfo
    task: str
    max_accuracy_drop: float
    profile: str | None
    splits: Mapping[str, Split]
    artifacts: tuple[Row, ...]
    absent: tuple[str, ...]
    warnings: tuple[str, ...]
    packages: Mapping[str, str]
    machine: str
    seconds: float
    exit_code: int
    bundle: str | None = None
    bundle_sha256: str | None = None
    bundle_bytes: int | None = None
    format: int = field(default=FORMAT)

    @property
    def ok(self) -> tuple[Row, ...]:
        return tuple(row for row in self.artifacts if row.status == "ok")


def report_dict(report: Report) -> dict[str, Any]:
    """As JSON writes it: numbers that are not finite become null."""
    return dict(_plain(asdict(report)))


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.json``."""
    path = folder / REPORT_FILE
    path.write_text(json.dumps(report_dict(report), indent=1) + "\n", encoding="utf-8")
    return path


def read_report(folder: Path) -> dict[str, Any]:
    """The report of a folder that `edgeship-convert run` wrote. Raises `InvalidRequest`."""
    path = folder / REPORT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InvalidRequest(f"{path} is no report of format {FORMAT}")
    missing = {each.name for each in fields(Report)} - set(values)
    if missing:
        raise InvalidRequest(f"{path} is damaged: {', '.join(sorted(missing))} missing")
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
