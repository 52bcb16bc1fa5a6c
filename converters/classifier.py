"""What this version measures: classifiers whose first output holds one logit for each class. Others are refused."""

from __future__ import annotations

import numpy as np

from converters.errors import UnsupportedModel
from converters.sources.activation import last_activation
from converters.sources.base import is_batched
from converters.sources.keras import KerasSource

__all__ = ["refuse_no_classes", "refuse_probabilities"]

SUM_TOLERANCE = 1e-2  # half-precision rows of many classes still sum to one within it
WHY = "confidences are computed from logits, and would be a softmax of probabilities here"


def refuse_no_classes(source: KerasSource) -> None:
    """Raise `UnsupportedModel` for a first output without two classes: a regressor, or a single sigmoid."""
    spec = source.outputs[0]
    fewer = spec.shape[-1] == 1 if len(spec.shape) > 1 else is_batched((spec,))
    if fewer:
        raise UnsupportedModel(
            f"{source.name}: the first output, {spec.name}, is one number for each row. This version measures "
            "classifiers: give a model with one logit for each of two or more classes"
        )


def refuse_probabilities(source: KerasSource, answers: np.ndarray | None = None) -> None:
    """Raise `UnsupportedModel` if the first output holds probabilities and not logits.

    That is so if its last operation is a softmax or sigmoid, or if all its ``answers`` (rows, …) are not negative and
    sum to one.
    """
    name = source.outputs[0].name
    last = last_activation(source.model)
    if last is not None:
        kind, layer = last
        raise UnsupportedModel(
            f"{source.name}: the first output, {name}, ends in a {kind} (layer {layer}); {WHY}. Give the model without "
            f"its last {kind}, trained weights unchanged: where it is a layer's activation, set "
            "layer.activation = keras.activations.linear and save; where it is a layer, end the model before it"
        )
    if answers is not None and _are_probabilities(answers):
        raise UnsupportedModel(
            f"{source.name}: every row of the first output, {name}, sums to one; {WHY}. Give the model without its "
            "last softmax, or end it in the logarithm of the probabilities"
        )


def _are_probabilities(answers: np.ndarray) -> bool:
    rows = answers.reshape(-1, answers.shape[-1]).astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    return bool(len(rows) and (rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= SUM_TOLERANCE).all())
