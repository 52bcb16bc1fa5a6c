"""Whether the device's own answer is trusted. Pure.

The score is the maximum softmax probability of the logits divided by a temperature (Guo et al. 2017, Hendrycks and
Gimpel 2017); of a model that gives probabilities p, the same with log p for logits, computed without the logarithm.
Python floats instead of NumPy: for the few classes of a small model this is several times faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["deferred", "score", "score_probabilities"]


def score(logits: Sequence[float], temperature: float = 1.0) -> tuple[int, float] | None:
    """(index of the first largest logit, its softmax probability at ``temperature``).

    None when a logit is NaN or infinite, or there are none.
    """
    # One pass finds whatever is not finite: NaN and opposite infinities sum to NaN, and a sum of finite float32
    # values cannot overflow a double.
    if not logits or not math.isfinite(sum(logits)):
        return None
    largest = max(logits)
    total = 0.0
    exp = math.exp
    for logit in logits:
        total += exp((logit - largest) / temperature)
    return logits.index(largest), 1.0 / total


def score_probabilities(probabilities: Sequence[float], temperature: float = 1.0) -> tuple[int, float] | None:
    """(index of the first largest probability, its share at ``temperature``: p ** (1 / T) over the sum of all).

    They need not sum to 1. One below 0 counts as 0; where none is above 0 the share is 0. None when one is NaN or
    infinite, or there are none.
    """
    if not probabilities or not math.isfinite(sum(probabilities)):
        return None
    largest = max(probabilities)
    if largest <= 0:
        return probabilities.index(largest), 0.0
    inverse = 1.0 / temperature
    total = 0.0
    for probability in probabilities:
        if probability > 0:
            total += (probability / largest) ** inverse
    return probabilities.index(largest), 1.0 / total


def deferred(confidence: float | None, threshold: float | None) -> bool:
    """Whether an answer with this confidence is not trusted. Without a confidence or a threshold it is."""
    return confidence is not None and threshold is not None and confidence < threshold
