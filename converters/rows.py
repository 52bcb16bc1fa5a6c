"""How a row of the report comes about: pure steps from one stage's result to the next. The gate is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converters.errors import ConverterError, QuantizationRefused, SourceError
from converters.report import Row
from converters.stages import floats, measure, quantize
from converters.task import LEAST_R2, Task

__all__ = [
    "UNTIMED",
    "cost_notes",
    "failed",
    "judged",
    "with_cost_notes",
    "with_float",
    "with_quantized",
    "without_twins",
]

UNTIMED = "latency was not measured: "


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
        notes=(*row.notes, *made.notes),
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
        notes=(*row.notes, *(f"output {n}: R² {value:.4f} against the source" for n, value in measured.others.items())),
        segments=measured.segments,
        edge_cases=measured.edge_cases,
    )
    why = _lost(measured, task, limit)
    return row if why is None else replace(row, status="failed_gate", reason=why)


def _lost(measured: measure.Result, task: Task, limit: float) -> str | None:
    """What is too much of a loss, and what to do; None where nothing is."""
    final = f"on {measured.rows:,} evaluation rows, {{}}; these rows are used once, so this is final: {{}}"
    if measured.drop > limit + ROUNDING:
        by_accuracy = measured.accuracy is not None and measured.skilled
        what = "decision agreement" if not by_accuracy else "R²" if task.metric == "r2" else "accuracy"
        return f"loses {measured.drop:.4f} of {what} " + final.format(
            f"more than the {limit:g} allowed", "give more calibration rows, or a wider limit"
        )
    worst = min(measured.others, key=lambda name: measured.others[name], default=None)
    if worst is not None and measured.others[worst] < LEAST_R2:
        return f"output {worst} has R² {measured.others[worst]:.4f} against the source " + final.format(
            f"less than the {LEAST_R2:g} that an output needs which decides nothing",
            "give more calibration rows, another precision, or a model without that output",
        )
    return None


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


def with_cost_notes(rows: Sequence[Row]) -> list[Row]:
    """The rows when all of them are timed, with what their bytes and microseconds mean beside fp32's."""
    return [replace(row, notes=(*row.notes, *cost_notes(row, rows))) for row in rows]


def cost_notes(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    """Where an artifact costs no less than the fp32 file of its target, among ``rows``: that it does, and why. Of times
    only what noise does not explain: the larger of both A/A ratios."""
    if row.status != "ok":
        return ()
    notes = []
    if row.target == "coreml":
        notes.append(f"{UNTIMED}no Core ML engine is used here, but a reference evaluator")
    if row.precision != "fp32" and row.bytes is not None and row.source_bytes is not None:
        if row.bytes >= row.source_bytes:
            notes.append(
                f"no smaller than fp32 ({row.bytes:,} bytes beside {row.source_bytes:,}): in a small model, scales and "
                "operators that quantize or cast take more than narrow weights save; fp32 is the better choice"
            )
        full = next((each for each in rows if each.kind == f"{row.target}/fp32" and each.status == "ok"), None)
        if full is not None and row.p50_us is not None and full.p50_us is not None:
            noise = max(row.p50_aa_ratio or 1.0, full.p50_aa_ratio or 1.0)
            if row.p50_us > full.p50_us * noise:
                notes.append(
                    f"slower here than fp32 ({row.p50_us:.0f} µs beside {full.p50_us:.0f}, more than the factor of "
                    f"{noise:.3f} that is noise); other processors have other kernels: measure on the device"
                )
    return tuple(notes)
