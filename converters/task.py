"""What a model is for, how its answers become decisions, and how well two sets of answers agree. Pure.

Accuracy and agreement are defined for every kind of model that can be converted:

``classification``
    The first output holds one number for each of two or more classes. The decision is the largest; accuracy and
    agreement are shares of rows.
``binary``
    The first output is one number and the data has class indices 0 and 1. The decision is whether it lies above one
    half (probabilities) or zero (a logit). What is not a number decides neither way, here and in a detection.
``regression``
    The data has targets, or the outputs are plain numbers. Accuracy is R², the share of the targets' variance that is
    explained; agreement is R² against the source. Neither is below 0.
``detection``
    Every output holds probabilities of many things at once: places, moments, or labels that do not exclude each other
    (sigmoids, and no class for each row). The decisions are whether each lies above one half; agreement is the share
    of decisions that are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from converters.data import Dataset
from converters.errors import InvalidRequest, LabelMismatch
from converters.parity import r_squared, varies
from converters.sources.base import is_batched
from edge_runtime.bundle import TensorSpec
from edge_runtime.bundle.manifest import Metric

__all__ = ["LEAST_R2", "Task", "TaskKind", "are_probabilities", "decisions", "find_task"]

LEAST_R2 = 0.9  # of an output that decides nothing: with less it says something else than the source's
SUM_TOLERANCE = 1e-2  # half-precision rows of many classes still sum to one within it
TaskKind = Literal["classification", "binary", "regression", "detection"]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """``output`` is the name of the first output, which decides. ``probabilities``: it holds them, and not logits.
    ``classes`` is 0 where there are none."""

    kind: TaskKind
    output: str
    classes: int = 0
    probabilities: bool = False

    @property
    def metric(self) -> Metric | None:
        """What accuracy means: ``accuracy``, ``r2``, or None where labels cannot be had."""
        return None if self.kind == "detection" else "r2" if self.kind == "regression" else "accuracy"

    @property
    def border(self) -> float:
        """Above it, a single number says yes."""
        return 0.5 if self.probabilities else 0.0

    def truth(self, data: Dataset) -> np.ndarray | None:
        """Labels or targets of the data, whichever this task is measured by."""
        return data.targets if self.kind == "regression" else data.labels if self.kind != "detection" else None

    def accuracy(self, outputs: Arrays, truth: np.ndarray) -> float:
        """Accuracy (or R²) of outputs ``(rows, …)`` against labels ``(rows,)`` or targets ``(rows, …)``."""
        first = outputs[self.output]
        if self.kind == "regression":
            return r_squared(truth.reshape(len(truth), -1), first.reshape(len(first), -1))
        return float(self.correct(outputs, truth).mean())

    def correct(self, outputs: Arrays, truth: np.ndarray) -> np.ndarray:
        """Which rows are decided as labelled, ``(rows,)`` bool."""
        first = outputs[self.output].reshape(len(truth), -1)
        if self.kind == "binary":
            return np.asarray(_answers(first[:, 0], self.border) == (truth > 0))
        return np.asarray(decisions(first) == truth)

    def is_skilled(self, outputs: Arrays, truth: np.ndarray) -> bool:
        """Whether the outputs are better than the best constant answer: the commonest class, or the mean.

        Where a source is not, its accuracy cannot show what a conversion lost: there is nothing to lose.
        """
        constant = 0.0 if self.kind == "regression" else float(np.unique(truth, return_counts=True)[1].max(initial=0))
        return self.accuracy(outputs, truth) > constant / max(1, len(truth))

    def agreement(self, expected: Arrays, actual: Arrays) -> float:
        """How far two models decide alike, 0 to 1, as the module's text defines it."""
        left, right = expected[self.output], actual[self.output]
        left, right = left.reshape(len(left), -1), right.reshape(len(left), -1)
        if not left.size:
            return 1.0
        if self.kind == "classification":
            return float((decisions(left) == decisions(right)).mean())
        if self.kind == "binary":
            return _same_answers(left[:, 0], right[:, 0], self.border)
        if self.kind == "detection":
            return float(np.mean([_same_answers(expected[name], actual[name], self.border) for name in expected]))
        return r_squared(left, right)

    def others(self, expected: Arrays, actual: Arrays) -> dict[str, float]:
        """R² against the source of each output that decides nothing, and so counts neither for accuracy nor for
        agreement. Without those that hardly vary, of which it says nothing."""
        if self.kind == "detection":  # decided by all outputs
            return {}
        return {
            name: r_squared(_by_row(values), _by_row(actual[name].reshape(values.shape)))
            for name, values in expected.items()
            if name != self.output and varies(values)
        }


def _by_row(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def decisions(outputs: np.ndarray) -> np.ndarray:
    """The class of each row, ``(rows,)``: argmax over everything but the first axis. A NaN decides for no class."""
    flat = outputs.reshape(len(outputs), -1)
    result: np.ndarray = flat.argmax(axis=1)
    if flat.dtype.kind == "f":
        result = np.where(np.isnan(flat).any(axis=1), -1, result)
    return result


def _answers(values: np.ndarray, border: float) -> np.ndarray:
    """1 for yes, 0 for no, -1 for what is not a number: a broken model must not pass for one that says no."""
    return np.where(np.isnan(values), -1, values > border)


def _same_answers(left: np.ndarray, right: np.ndarray, border: float) -> float:
    return float((_answers(left.ravel(), border) == _answers(right.ravel(), border)).mean())


def find_task(
    outputs: tuple[TensorSpec, ...],
    activation: str | None,
    answers: Arrays,
    data: Dataset,
    asked: TaskKind | None = None,
) -> Task:
    """The task, from the outputs' shapes, the source's ``answers`` to ``data``, and what the data knows of its rows;
    or the one that was ``asked`` for, where nothing in the shapes can tell a vector of numbers from classes.

    Raises `LabelMismatch` for labels or targets that such outputs cannot be measured by, and `InvalidRequest` for a
    task that such outputs cannot be for.
    """
    first = outputs[0]
    if asked is not None:
        return _as_asked(asked, outputs, activation, answers, data)
    shape = first.shape[1:] if is_batched(outputs) else first.shape
    values = answers[first.name]
    elements = int(values.size // max(1, len(values)))
    bounded = activation is not None or _in_unit_range(values)
    if data.targets is not None:
        if elements != int(data.targets.size // max(1, len(data.targets))):
            raise LabelMismatch(
                f"{data.name}: target has shape {data.targets.shape}, the first output {first.name} {values.shape}"
            )
        return Task(kind="regression", output=first.name)
    axes = [size for size in shape if size != 1]
    several = activation == "sigmoid" and data.labels is None and all(_in_unit_range(answers[o.name]) for o in outputs)
    one_class = len(outputs) == 1 or data.labels is not None or _one_axis(outputs)
    if elements >= 2 and len(axes) == 1 and one_class and not several:
        probabilities = activation == "softmax" or are_probabilities(values.reshape(len(values), -1))
        return Task(kind="classification", output=first.name, classes=elements, probabilities=probabilities)
    if data.labels is not None:
        if elements != 1:
            raise LabelMismatch(
                f"{data.name}: label holds one class a row, but the first output {first.name} has shape "
                f"{values.shape}; leave label out, or give the values as target"
            )
        if data.labels.size and data.labels.max() > 1:
            raise LabelMismatch(
                f"{data.name}: label holds classes up to {int(data.labels.max())}, but the first output {first.name} "
                "is one number, which can tell two apart; give numbers to be predicted as target"
            )
        return Task(kind="binary", output=first.name, probabilities=bounded)
    if elements > 1 and all(_in_unit_range(answers[spec.name]) for spec in outputs):
        return Task(kind="detection", output=first.name, probabilities=True)
    return Task(kind="regression", output=first.name)


def _as_asked(
    asked: TaskKind, outputs: tuple[TensorSpec, ...], activation: str | None, answers: Arrays, data: Dataset
) -> Task:
    name = outputs[0].name
    values = answers[name].reshape(len(answers[name]), -1)
    unfit = {
        "classification": values.shape[1] < 2 and "one number a row has no classes",
        "binary": values.shape[1] != 1 and f"{values.shape[1]} numbers a row are no yes or no",
        "detection": not all(_in_unit_range(answers[each.name]) for each in outputs)
        and "its outputs are no probabilities",
        "regression": False,
    }[asked]
    if unfit:
        raise InvalidRequest(f"task {asked}: {unfit} (first output {name})")
    known, other, wrong = (
        ("target", "label", data.labels) if asked == "regression" else ("label", "target", data.targets)
    )
    if wrong is not None and asked != "detection":
        raise LabelMismatch(f"{data.name}: a {asked} model is measured by {known}; give that, or leave {other} out")
    return Task(
        kind=asked,
        output=name,
        classes=values.shape[1] if asked == "classification" else 0,
        probabilities=asked == "detection"
        or (asked == "binary" and (activation is not None or _in_unit_range(values)))
        or (asked == "classification" and (activation == "softmax" or are_probabilities(values))),
    )


def _one_axis(outputs: tuple[TensorSpec, ...]) -> bool:
    """Whether every output is a vector: a model with several heads, not one whose outputs are images or sequences."""
    return all(len([size for size in spec.shape[1:] if size != 1]) <= 1 for spec in outputs)


def _in_unit_range(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() >= 0 and finite.max() <= 1)


def are_probabilities(values: np.ndarray) -> bool:
    """Whether no entry of ``(rows, classes)`` is negative and every finite row sums to one."""
    rows = values.astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    return bool(len(rows) and (rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= SUM_TOLERANCE).all())
