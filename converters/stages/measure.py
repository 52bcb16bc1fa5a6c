"""Fourth stage, once an artifact: answers on the evaluation rows, confidence, golden examples, telemetry reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.confidence import confidence_of
from converters.data import LABEL, Dataset
from converters.engines import Engine, open_engine
from converters.errors import CheckFailed, TooLittleData
from converters.evaluate import machine
from converters.golden import make_golden
from converters.parity import compare, refuse_wrong_float
from converters.progress import Say
from converters.reference import FeatureSpec, feature_references, reference_of
from converters.segments import choose_columns, part_name
from converters.splitting import split_rows
from converters.stages.choosing import Chosen, ConfidenceRule, choose
from converters.stages.files import EDGE, golden_file, read_answers, read_data
from converters.stages.sources import SourceInfo
from converters.task import Task
from edge_runtime.bundle import Reference
from edge_runtime.bundle.manifest import Score

__all__ = ["CALIBRATION_SHARES", "Job", "Part", "Result", "run"]

CALIBRATION_SHARES = (0.5, 0.25, 0.25)  # ranges, the search's held-out part, and confidence where nothing else is given
REFERENCE_ROWS = 4096  # training rows that an artifact answers for its reference shares
GOLDEN_ROWS = 2048  # rows that golden examples are chosen from


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``edge_cases`` maps a name to a labelled ``.npz`` that `describe` has checked, as split ``edge.<name>``."""

    target: str
    precision: str
    file: str
    info: SourceInfo
    task: Task
    work: str
    rule: ConfidenceRule
    features: tuple[FeatureSpec, ...]
    labels: tuple[str, ...]
    edge_cases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Accuracy on a named part of the evaluation rows, or on an edge case."""

    name: str
    rows: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``accuracy`` and ``source_accuracy`` are None without labels. ``skilled``: the source is better than a constant
    answer on these rows. ``others`` is the R² of each further output. ``missing`` says what is absent, and why."""

    rows: int
    accuracy: float | None
    source_accuracy: float | None
    skilled: bool
    agreement: float
    max_abs_error: float
    mean_abs_error: float
    mismatched: int
    evaluated_with: str
    machine: str
    confidence: Chosen | None
    golden: str
    golden_tolerance: float
    golden_spread: float
    golden_examples: int
    reference: Reference | None
    segments: tuple[Part, ...]
    edge_cases: tuple[Part, ...]
    missing: tuple[str, ...]
    others: Mapping[str, float]

    @property
    def drop(self) -> float:
        """What was lost: accuracy against the source's, or agreement where there are no labels, or none that the source
        knows better than chance: its accuracy has nothing to lose then, and would let anything pass."""
        if self.accuracy is None or self.source_accuracy is None or not self.skilled:
            return 1 - self.agreement
        return self.source_accuracy - self.accuracy


def run(job: Job, say: Say) -> Result:
    """Raises `CheckFailed` for a float artifact that is not its source, or one without a clear golden example."""
    info, task = job.info, job.task
    what = f"{job.target} {job.precision}"
    evaluation = _needed(job.work, "evaluation")
    data = Path(job.file).read_bytes()
    say(f"{what}: evaluation", 0, 3)
    engine = open_engine(job.target, data, info.inputs, info.outputs)
    expected = read_answers(job.work, "evaluation")
    outputs = engine.run(evaluation.inputs)
    parity = compare(expected, outputs)
    if job.precision == "fp32":
        refuse_wrong_float(what, expected, outputs)
    truth = task.truth(evaluation)
    missing: list[str] = []
    say(f"{what}: confidence and golden examples", 1, 3)
    chosen = _confidence(job, engine, missing)
    calibration = read_data(job.work, "calibration") or evaluation
    golden = make_golden(
        job.target,
        data,
        info.inputs,
        info.outputs,
        calibration.take(GOLDEN_ROWS),
        decide=task.kind == "classification",
        least=parity.mean_abs_error if job.precision != "fp32" else 0.0,
    )
    file = golden_file(job.work, job.target, job.precision)
    file.write_bytes(golden.data)
    say(f"{what}: telemetry reference", 2, 3)
    reference = _reference(job, engine, chosen, read_data(job.work, "training") or calibration, missing)
    return Result(
        rows=evaluation.rows,
        accuracy=None if truth is None else task.accuracy(outputs, truth),
        source_accuracy=None if truth is None else task.accuracy(expected, truth),
        skilled=truth is not None and task.is_skilled(expected, truth),
        agreement=task.agreement(expected, outputs),
        max_abs_error=parity.max_abs_error,
        mean_abs_error=parity.mean_abs_error,
        mismatched=parity.mismatched,
        evaluated_with=engine.name,
        machine=machine(),
        confidence=chosen,
        golden=str(file),
        golden_tolerance=golden.tolerance,
        golden_spread=golden.spread,
        golden_examples=golden.examples,
        reference=reference,
        segments=() if truth is None else _segments(job, evaluation, outputs, truth, missing),
        edge_cases=tuple(_edge_case(job, engine, name) for name in job.edge_cases),
        missing=tuple(missing),
        others=task.others(expected, outputs),
    )


def _needed(work: str, split: str) -> Dataset:
    data = read_data(work, split)
    if data is None:
        raise CheckFailed(f"the checked {split} data has gone from the work folder")
    return data


def _confidence(job: Job, engine: Engine, missing: list[str]) -> Chosen | None:
    if job.task.kind != "classification":
        missing.append(f"temperature and threshold: a {job.task.kind} model has no classes to be sure of")
        return None
    data, more = read_data(job.work, "confidence"), ""
    if data is None:
        calibration = read_data(job.work, "calibration")
        if calibration is None or calibration.labels is None:
            missing.append("temperature and threshold: they need --confidence, or a labelled calibration file")
            return None
        data = calibration.at(split_rows(calibration, CALIBRATION_SHARES)[2])
        more = (
            f". Without --confidence these rows are the {CALIBRATION_SHARES[2]:.0%} of the calibration rows that are "
            "kept for this: give --confidence a labelled file of so many rows, or "
            f"{1 / CALIBRATION_SHARES[2]:.0f} times as many labelled rows to --calibration"
        )
    if data.labels is None:
        missing.append(f"temperature and threshold: {data.name} has no array named {LABEL}")
        return None
    logits = engine.run(data.inputs)[job.task.output]
    try:
        return choose(logits.reshape(len(logits), -1), data, job.rule, probabilities=job.task.probabilities)
    except TooLittleData as error:
        missing.append(f"temperature and threshold: {error}{more}")
        return None


def _reference(
    job: Job, engine: Engine, chosen: Chosen | None, training: Dataset, missing: list[str]
) -> Reference | None:
    training = training.take(REFERENCE_ROWS)
    features = feature_references(job.features, job.info.inputs, training.inputs)
    if job.task.kind != "classification":
        if not features:
            missing.append("telemetry reference: no features, and no classes")
            return None
        return Reference(features=features, classes=(), confidence=())
    logits = engine.run(training.inputs)[job.task.output]
    logits = logits.reshape(len(logits), -1)
    usable = np.isfinite(logits).all(axis=1)
    if not usable.any():
        raise CheckFailed(f"{job.target} {job.precision}: no finite output for any training row")
    temperature = 1.0 if chosen is None else chosen.temperature
    score: Score = "probability" if job.task.probabilities else "msp"
    confidences = confidence_of(logits[usable], temperature, score=score)
    return reference_of(features, job.labels, logits[usable], confidences)


def _segments(
    job: Job, evaluation: Dataset, outputs: Mapping[str, np.ndarray], truth: np.ndarray, missing: list[str]
) -> tuple[Part, ...]:
    """By class, by group, and by every segment column: what an average hides."""
    columns: dict[str, np.ndarray] = dict(evaluation.segments)
    if evaluation.groups is not None:
        columns["group"] = evaluation.groups
    if job.task.kind == "classification":
        columns["label"] = np.asarray(job.labels)[truth]
    chosen, left_out = choose_columns(columns)
    missing.extend(left_out)
    parts = []
    for name, values in chosen.items():
        for value in values:
            rows = np.flatnonzero(columns[name] == value)
            some = {key: array[rows] for key, array in outputs.items()}
            accuracy = job.task.accuracy(some, truth[rows])
            parts.append(Part(name=part_name(name, value), rows=len(rows), accuracy=accuracy))
    return tuple(parts)


def _edge_case(job: Job, engine: Engine, name: str) -> Part:
    data = _needed(job.work, f"{EDGE}{name}")
    truth = job.task.truth(data)
    assert truth is not None, "`describe` refuses edge cases without"
    outputs = engine.run(data.inputs)
    return Part(name=name, rows=data.rows, accuracy=job.task.accuracy(outputs, truth))
