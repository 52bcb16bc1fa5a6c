"""How a row of the report comes about: pure steps from one stage's result to the next. The gate is here."""

from __future__ import annotations

from dataclasses import replace

from converters.errors import ConverterError, QuantizationRefused, SourceError
from converters.report import Row
from converters.stages import floats, measure, quantize
from converters.task import Task

__all__ = ["failed", "judged", "with_float", "with_quantized", "without_twins"]


def failed(row: Row, error: ConverterError) -> Row:
    """``refused`` for what cannot be done with this model, ``error`` for what went wrong doing it."""
    refused = isinstance(error, SourceError | QuantizationRefused)
    return replace(row, status="refused" if refused else "error", reason=f"{type(error).__name__}: {error}")


def with_float(row: Row, made: floats.Result, quantized: bool = False) -> Row:
    """``quantized``: what was made is a finished file that is quantized already, so that there is no fp32 one."""
    return replace(
        row,
        source_bytes=None if quantized else made.bytes,
        tools=made.tools,
        environment=made.environment,
        notes=made.notes,
    )


def with_quantized(row: Row, made: quantize.Result) -> Row:
    return replace(
        row,
        precision=made.precision,
        reason=made.reason or None,
        recipe=made.recipe,
        kept_float=made.kept,
        candidates=made.candidates,
        int8_weight_share=made.weight_share,
        float_operators=made.float_operators,
        operators=made.operators,
        minimum_engine_version=made.minimum_engine_version,
        bytes=made.bytes,
        file=made.file,
        sha256=made.sha256,
    )


def judged(row: Row, measured: measure.Result, task: Task, limit: float) -> Row:
    """With what was measured on the evaluation rows, and the gate's verdict, which is final."""
    row = replace(
        row,
        status="ok",
        metric=task.metric if measured.accuracy is not None else None,
        accuracy=measured.accuracy,
        source_accuracy=measured.source_accuracy,
        rows=measured.rows,
        drop=measured.drop,
        decision_agreement=measured.agreement,
        max_abs_error=measured.max_abs_error,
        mean_abs_error=measured.mean_abs_error,
        mismatched=measured.mismatched,
        evaluated_with=measured.evaluated_with,
        machine=measured.machine,
        confidence=measured.confidence,
        golden_examples=measured.golden_examples,
        golden_tolerance=measured.golden_tolerance,
        golden_spread=measured.golden_spread,
        notes=(*row.notes, *measured.notes),
        segments=measured.segments,
        edge_cases=measured.edge_cases,
    )
    if measured.drop <= limit + ROUNDING:
        return row
    by_accuracy = measured.accuracy is not None and measured.skilled
    what = "decision agreement" if not by_accuracy else "R²" if task.metric == "r2" else "accuracy"
    reason = (
        f"loses {measured.drop:.4f} of {what} on {measured.rows:,} evaluation rows, more than the {limit:g} allowed; "
        "the evaluation rows are used once, so this is final: give more calibration rows, or a wider limit"
    )
    return replace(row, status="failed_gate", reason=reason)


ROUNDING = 1e-12  # one row of many is a share that no float holds exactly


def without_twins(rows: list[Row]) -> list[Row]:
    """The rows of a target, of which no two artifacts have the same precision: one that fell back to what another was
    asked for, or had fallen back to before, is ``refused``."""
    kept: dict[str, Row] = {}
    for row in sorted(rows, key=lambda each: each.asked != each.precision):  # what was asked for comes first
        if row.status == "ok":
            kept.setdefault(row.kind, row)
    return [row if row.status != "ok" or kept[row.kind] is row else _twin(row) for row in rows]


def _twin(row: Row) -> Row:
    reason = f"{row.asked} reached only {row.precision}, which is in the bundle already ({row.reason})"
    return replace(row, status="refused", reason=reason)
