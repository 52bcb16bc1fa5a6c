"""From a source to measured artifacts: convert, quantize, check, evaluate. The output folder appears whole or not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.artifact import ConvertedArtifact
from converters.classifier import refuse_no_classes, refuse_probabilities
from converters.confidence import confidence_of, fit_temperature, threshold_for_deferral
from converters.data import Dataset, check_dataset
from converters.engines import Engine, open_engine
from converters.errors import InvalidRequest
from converters.evaluate import accuracy, interleaved_p50_us, machine
from converters.output import written_whole
from converters.parity import compare, refuse_wrong_float
from converters.quantize.coreml import inspect_coreml, quantize_coreml
from converters.quantize.onnx import inspect_onnx, quantize_onnx
from converters.quantize.recipes import DEFAULT_RECIPE, Recipe, load_recipe
from converters.quantize.tflite import inspect_tflite, quantize_tflite
from converters.quantize.weights import Quantized
from converters.quiet import load_tool
from converters.report import Report, write_report
from converters.sources.base import is_batched
from converters.sources.keras import KerasSource
from converters.targets import FILE_SUFFIX, PRECISIONS, TARGETS
from converters.targets import coreml as coreml_target
from converters.targets import onnx as onnx_target
from converters.targets import tflite as tflite_target
from edge_runtime.bundle import check_file

__all__ = ["Progress", "convert"]

MIN_CALIBRATION_ROWS = 32
MAX_CALIBRATION_ROWS = 512  # evenly spread over what was given; ranges hardly move beyond
MIN_EVALUATION_ROWS = 10
CALL_ROWS = 64  # rows of one calibration call
Progress = Callable[[str, int, int], None]  # what is done next, steps done, steps in all


def convert(
    source: KerasSource,
    *,
    evaluation: Dataset,
    out: Path | str,
    calibration: Dataset | None = None,
    confidence: Dataset | None = None,
    deferral_share: float = 0.2,
    targets: Sequence[str] = TARGETS,
    precisions: Sequence[str] = PRECISIONS,
    recipe: Recipe | str = DEFAULT_RECIPE,
    name: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[ConvertedArtifact]:
    """Convert ``source`` to every target × precision and measure each artifact on ``evaluation``.

    ``calibration`` gives the ranges for int8 (at least 32 rows, labels not needed). With ``confidence``, a labelled
    split apart from both, every artifact gets its own temperature and the threshold that defers ``deferral_share`` of
    that split. ``out`` appears whole or not at all: files ``<name>-<precision><suffix>`` and ``report.json``.

    The first output holds one logit for each class. A model with fewer than two classes, or whose last operation is a
    softmax or sigmoid, is refused: confidences, here and on devices, are a softmax of what the model gives.

    Raises `DataError`, `SourceError`, `ConversionFailed`, `CheckFailed` (a float artifact that differs from its
    source, or int8 with too few weights in INT8), `OutputError`. Nothing is left behind then.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    kinds = _kinds(targets, precisions)
    refuse_no_classes(source)
    refuse_probabilities(source)
    classes = _classes(source)
    evaluation = check_dataset(evaluation, source.inputs, classes=classes, minimum=MIN_EVALUATION_ROWS)
    if any(precision == "int8" for _, precision in kinds):
        if calibration is None:
            raise InvalidRequest("int8 needs calibration data: rows of real inputs that were not used for evaluation")
        calibration = check_dataset(calibration, source.inputs, classes=classes, minimum=MIN_CALIBRATION_ROWS)
        calibration = calibration.take(MAX_CALIBRATION_ROWS)
    if confidence is not None:
        confidence = check_dataset(
            confidence, source.inputs, classes=classes, minimum=MIN_EVALUATION_ROWS, labelled=True
        )
    if not 0 <= deferral_share <= 1:
        raise InvalidRequest(f"deferral_share is between 0 and 1, not {deferral_share}")
    stem = check_file(name or source.name)
    say = _Steps(progress, len(kinds) * 2 + 2)
    with written_whole(Path(out), overwrite=overwrite) as folder:
        say(f"{source.name}: answers of the source")
        expected = source.predict(evaluation.inputs)
        refuse_probabilities(source, expected[source.outputs[0].name])
        builder = _Builder(source, recipe, calibration)
        drafts: list[tuple[ConvertedArtifact, Engine]] = []
        for target, precision in kinds:
            say(f"{target} {precision}: converting")
            data, quantized, operators = builder.build(target, precision)
            path = folder / f"{stem}-{precision}{FILE_SUFFIX[target]}"
            path.write_bytes(data)
            say(f"{target} {precision}: evaluating on {evaluation.rows} rows")
            draft, engine = _measured(source, target, precision, data, evaluation, expected, confidence, deferral_share)
            drafts.append(
                (
                    replace(
                        draft,
                        path=Path(out) / path.name,
                        operators=operators,
                        float_operators=quantized.float_operators if precision == "int8" else (),
                        weight_share=quantized.share,
                        recipe=recipe.name if precision == "int8" else None,
                    ),
                    engine,
                )
            )
        say("latency of all artifacts, in turns")
        artifacts = _with_latency(drafts, evaluation)
        write_report(Report.of(source, artifacts), folder)
        return artifacts


class _Builder:
    """Converts one source, freezing it and converting to float once for each target."""

    def __init__(self, source: KerasSource, recipe: Recipe, calibration: Dataset | None) -> None:
        self._source = source
        self._recipe = recipe
        self._calibration = calibration
        self._floats: dict[str, bytes] = {}
        self._graphs: dict[str, Any] = {}

    def build(self, target: str, precision: str) -> tuple[bytes, Quantized, tuple[str, ...]]:
        """(file, what of it is INT8, operator types)."""
        if target == "onnx":
            data = self._float("onnx")
            if precision == "int8":
                data = quantize_onnx(data, self._calls(CALL_ROWS), self._recipe)
            model = load_tool("onnx").load_from_string(data)
            return data, inspect_onnx(model), onnx_target.onnx_operators(model)
        if target == "tflite":
            data = self._float("tflite")
            if precision == "int8":
                data = quantize_tflite(data, self._calls(1), self._recipe)
            return data, inspect_tflite(data), tuple(sorted(set(tflite_target.tflite_operators(data))))
        if precision == "int8":
            assert self._calibration is not None
            rows = {name: array[:, np.newaxis] for name, array in self._calibration.inputs.items()}
            data = quantize_coreml(self._graph("coreml"), self._source.inputs, rows, self._recipe)
        else:
            data = self._float("coreml")
        reference = coreml_target.check_coreml(data, *self._names())
        return data, inspect_coreml(reference), coreml_target.coreml_operators(reference)

    def _float(self, target: str) -> bytes:
        if target not in self._floats:
            source = self._source
            if target == "onnx":
                data = onnx_target.convert_to_onnx(self._graph("onnx"), source.inputs, source.outputs)
            elif target == "tflite":
                tflite_target.refuse_dynamic(target, source.inputs)
                data = tflite_target.convert_to_tflite(self._graph("tflite"), source.inputs, source.outputs)
            else:
                tflite_target.refuse_dynamic(target, source.inputs)
                data = coreml_target.pack_program(coreml_target.coreml_program(self._graph("coreml"), source.inputs))
            self._floats[target] = data
        return self._floats[target]

    def _graph(self, target: str) -> Any:
        if target not in self._graphs:
            batch = None if target == "onnx" else 1
            self._graphs[target] = self._source.frozen(batch=batch, lower_control_flow=target == "tflite")
        return self._graphs[target]

    def _calls(self, rows: int) -> list[Mapping[str, np.ndarray]]:
        assert self._calibration is not None
        inputs = self._calibration.inputs
        if not is_batched(self._source.inputs):
            return [{name: array[row] for name, array in inputs.items()} for row in range(self._calibration.rows)]
        starts = range(0, self._calibration.rows, rows)
        return [{name: array[start : start + rows] for name, array in inputs.items()} for start in starts]

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(s.name for s in self._source.inputs), tuple(s.name for s in self._source.outputs)


def _measured(
    source: KerasSource,
    target: str,
    precision: str,
    data: bytes,
    evaluation: Dataset,
    expected: Mapping[str, np.ndarray],
    confidence: Dataset | None,
    deferral_share: float,
) -> tuple[ConvertedArtifact, Engine]:
    """An artifact with everything but its path, operators and latency; and its engine."""
    engine = open_engine(target, data, source.inputs, source.outputs)
    first = source.outputs[0].name
    outputs = engine.run(evaluation.inputs)
    parity = compare(expected, outputs)
    if precision == "fp32":
        refuse_wrong_float(f"{target} {precision}", parity)
    labels = evaluation.labels
    temperature = threshold = None
    if confidence is not None and confidence.labels is not None:
        logits = engine.run(confidence.inputs)[first]
        logits = logits.reshape(len(logits), -1)
        temperature = fit_temperature(logits, confidence.labels)
        threshold = threshold_for_deferral(confidence_of(logits, temperature), deferral_share)
    artifact = ConvertedArtifact(
        target=target,
        precision=precision,
        path=Path(),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        operators=(),
        float_operators=(),
        weight_share=0.0,
        recipe=None,
        minimum_engine_version=_MINIMUM_ENGINE_VERSION[target],
        accuracy=None if labels is None else accuracy(outputs[first], labels),
        source_accuracy=None if labels is None else accuracy(expected[first], labels),
        rows=evaluation.rows,
        max_abs_error=parity.max_abs_error,
        mean_abs_error=parity.mean_abs_error,
        mismatched=parity.mismatched,
        agreement=parity.agreement,
        p50_us=None,
        evaluated_with=engine.name,
        machine=machine(),
        temperature=temperature,
        threshold=threshold,
        confidence_sha256=None if confidence is None else confidence.sha256,
    )
    return artifact, engine


_MINIMUM_ENGINE_VERSION = {
    "onnx": onnx_target.MINIMUM_ENGINE_VERSION,
    "tflite": tflite_target.MINIMUM_ENGINE_VERSION,
    "coreml": coreml_target.MINIMUM_ENGINE_VERSION,
}


def _with_latency(drafts: list[tuple[ConvertedArtifact, Engine]], evaluation: Dataset) -> list[ConvertedArtifact]:
    callers = {artifact.kind: engine.caller(evaluation.inputs) for artifact, engine in drafts}
    p50 = interleaved_p50_us({kind: call for kind, call in callers.items() if call is not None})
    return [replace(artifact, p50_us=p50.get(artifact.kind)) for artifact, _ in drafts]


def _kinds(targets: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    for given, known, what in ((targets, TARGETS, "target"), (precisions, PRECISIONS, "precision")):
        if not given:
            raise InvalidRequest(f"no {what} was asked for; there are {', '.join(known)}")
        for each in given:
            if each not in known:
                raise InvalidRequest(f"no {what} {each!r} in this version; there are {', '.join(known)}")
    return [(target, precision) for target in dict.fromkeys(targets) for precision in dict.fromkeys(precisions)]


def _classes(source: KerasSource) -> int | None:
    shape = source.outputs[0].shape
    return shape[-1] if len(shape) > 1 and isinstance(shape[-1], int) else None


class _Steps:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, text: str) -> None:
        if self._progress:
            self._progress(text, self._done, self._total)
        self._done += 1
