"""From logits to a confidence that can be trusted, and the threshold below which an answer is deferred. Pure NumPy."""

from __future__ import annotations

import numpy as np

from converters.errors import InvalidRequest, TooLittleData

__all__ = ["confidence_of", "fit_temperature", "threshold_for_deferral"]

LOWEST, HIGHEST = 0.2, 100.0  # temperatures; below, float32 softmax saturates and confidences no longer rank
STEPS = 60


def confidence_of(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Largest softmax probability of ``logits / temperature``: ``(rows, classes)`` → ``(rows,)``, 0 to 1.

    A row with a logit that is not finite has confidence 0.
    """
    scaled = logits.astype(np.float64) / temperature
    finite = np.asarray(np.isfinite(scaled).all(axis=-1))
    scaled = np.where(finite[..., np.newaxis], scaled, 0.0)
    result = 1.0 / np.exp(scaled - scaled.max(axis=-1, keepdims=True)).sum(axis=-1)
    return np.where(finite, result, 0.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimizes the negative log likelihood (Guo et al. 2017, section 4.2).

    The loss is convex in 1/T, so its slope is bisected. Rows that are not finite do not count. Rows without a single
    mistake say nothing about how often the model is wrong; T is 1 then.
    """
    finite = np.isfinite(logits).all(axis=1)
    z, y = logits[finite].astype(np.float64), labels[finite]
    if len(z) < 2:
        raise TooLittleData("fewer than two rows with finite logits to fit a temperature on")
    if (z.argmax(axis=1) == y).all():
        return 1.0
    chosen = z[np.arange(len(z)), y]

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * (z - z.max(axis=1, keepdims=True)))
        return float(((weights * z).sum(axis=1) / weights.sum(axis=1) - chosen).mean())

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def threshold_for_deferral(confidences: np.ndarray, share: float) -> float:
    """τ such that a ``share`` of these confidences lies below it; where confidences are equal, fewer do."""
    if not 0 <= share <= 1:
        raise InvalidRequest(f"a share of deferred answers is between 0 and 1, not {share}")
    ordered = np.sort(np.asarray(confidences, dtype=np.float64))
    count = round(share * len(ordered))
    if count == 0:
        return 0.0
    if count == len(ordered):
        return 1.0
    return float((ordered[count - 1] + ordered[count]) / 2)
