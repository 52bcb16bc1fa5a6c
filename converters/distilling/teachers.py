"""The teacher's answers to rows, as logits or as values, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import NonFiniteData, UnsupportedModel, WrongShape
from converters.quiet import load_tool
from converters.sources.base import Source, is_batched
from converters.task import are_probabilities
from edge_runtime.bundle import TensorSpec

__all__ = ["Teacher", "open_teacher", "to_logits"]

SMALLEST = 1e-6  # a probability of 0 has no logarithm; forests give many
DECIDES = (
    "the teacher gives decision scores, which are no logits: a temperature of 4 can flatten them until they teach "
    "nothing. Try --temperature 0.5, or give an estimator with probabilities"
)
Answer = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """``answer`` maps rows of inputs to logits ``(rows, classes)``, or to values ``(rows, outputs)`` for regression,
    float32. ``inputs`` is None for a function, whose inputs nobody knows; ``caution`` says what to know of its answers.
    """

    name: str
    kind: str
    parameters: int | None
    inputs: tuple[TensorSpec, ...] | None
    answer: Answer
    caution: str | None = None


def open_teacher(teacher: Source | Any, *, regression: bool = False) -> Teacher:
    """A source, a Keras model, or a function from rows to logits or probabilities (values, with ``regression``).

    A function is given one array if the data has one input, else a mapping by name. Raises `UnsupportedModel`, and on
    an answer `WrongShape` or `NonFiniteData`.
    """
    if not callable(getattr(teacher, "predict", None)):
        if not callable(teacher):
            raise UnsupportedModel(
                f"a teacher is a source, a Keras model or a function from rows to logits, not {type(teacher).__name__}"
            )
        name = getattr(teacher, "__name__", type(teacher).__name__)

        def ask(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            rows = next(iter(inputs.values())) if len(inputs) == 1 else inputs
            return _checked(np.asarray(teacher(rows)), inputs, name, regression=regression, activation=None)

        return Teacher(name=name, kind="function", parameters=None, inputs=None, answer=ask)
    source = _as_source(teacher)
    if not is_batched(source.inputs):
        raise UnsupportedModel(f"{source.name}: its rows depend on each other, so it cannot teach row by row")

    def answer(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        outputs = source.predict(inputs)
        name = _scores(source.outputs, outputs, regression=regression)
        activation = source.activation if name == source.outputs[0].name else None
        return _checked(
            outputs[name], inputs, f"{source.name}, output {name}", regression=regression, activation=activation
        )

    decides = source.kind == "sklearn" and source.outputs[0].name == "scores"
    return Teacher(
        name=source.name,
        kind=source.kind,
        parameters=source.parameters,
        inputs=source.inputs,
        answer=answer,
        caution=DECIDES if decides else None,
    )


def to_logits(values: np.ndarray, activation: str | None = None) -> np.ndarray:
    """Logits ``(rows, classes)`` float32 from logits or probabilities ``(rows, classes)``, or from one number a row.

    Probabilities become their logarithms, at least log 1e-6; one number becomes the logits 0 and log-odds.
    ``activation`` is what the model ends in, where that is known; else numbers that can be probabilities are taken so.
    """
    values = values.reshape(len(values), -1).astype(np.float64)
    if values.shape[1] == 1:
        if activation == "sigmoid" or (activation is None and values.size and values.min() >= 0 and values.max() <= 1):
            p = np.clip(values, SMALLEST, 1 - SMALLEST)
            values = np.log(p / (1 - p))
        return np.concatenate([np.zeros_like(values), values], axis=1).astype(np.float32)
    if activation == "softmax" or are_probabilities(values):
        values = np.log(np.maximum(values, SMALLEST))
    return values.astype(np.float32)


def _as_source(teacher: Any) -> Source:
    if all(hasattr(teacher, name) for name in ("inputs", "outputs", "kind", "parameters")):
        return teacher
    keras = load_tool("keras")
    if isinstance(teacher, keras.Model):
        from converters.sources.keras import KerasSource

        return KerasSource(teacher)
    raise UnsupportedModel(
        f"{type(teacher).__name__} is no source; open scikit-learn's with converters.open_source(file.pkl), or give a "
        "function, as in model.predict_proba"
    )


def _scores(specs: tuple[TensorSpec, ...], outputs: Mapping[str, np.ndarray], *, regression: bool) -> str:
    """Which output is learned from: the first, unless it holds decided classes and another one their scores."""
    if regression or outputs[specs[0].name].dtype.kind == "f":
        return specs[0].name
    return next((spec.name for spec in specs if outputs[spec.name].dtype.kind == "f"), specs[0].name)


def _checked(
    values: np.ndarray,
    inputs: Mapping[str, np.ndarray],
    what: str,
    *,
    regression: bool,
    activation: str | None,
) -> np.ndarray:
    rows = len(next(iter(inputs.values())))
    if values.ndim < 1 or len(values) != rows:
        raise WrongShape(f"the teacher ({what}) answered with shape {values.shape} to {rows} rows")
    if values.dtype.kind not in "fiu" or (values.dtype.kind != "f" and not regression):
        raise UnsupportedModel(
            f"the teacher ({what}) answers with {values.dtype}: decided classes teach no more than labels do; a "
            "teacher gives probabilities or logits"
        )
    if not np.isfinite(values).all():
        raise NonFiniteData(f"the teacher's answers ({what}) hold NaN or infinity")
    return values.reshape(rows, -1).astype(np.float32) if regression else to_logits(values, activation)
