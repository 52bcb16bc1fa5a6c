"""A threshold for a target risk, by exact tests over thresholds in a fixed order. Pure.

The risk of a threshold τ is the share of wrong answers among those whose confidence reaches τ. On rows that are drawn
independently the wrong ones among m answered are binomial, so that "the risk of τ is above r" is tested exactly.

- Fixed-sequence testing: Angelopoulos, Bates, Candès, Jordan, Lei 2021, *Learn then Test*, arXiv:2110.01052, section 4.
  The thresholds are tested one after the other, each at level δ, until the first that fails; the last that passed has
  a risk above r with probability at most δ, because a wrong one among them must be the first wrong one. The order must
  not depend on the rows that are tested on.
- The alternative is SGR (Geifman and El-Yaniv 2017, *Selective Classification for Deep Neural Networks*), a binary
  search of ⌈log2 n⌉ steps at δ / ⌈log2 n⌉ each. Over 36 simulated settings (error .07 to .26; target .02, .05 and half
  the error; 200, 500 and 2,000 rows, a fifth of them for the temperature; δ = .1; 200 resplits each) it answered .30 of
  the rows on average, the fixed sequence .43, whose risk was above the target in at most .10 of the resplits of a
  setting. SGR has no use for the rows of the temperature; the sequence gets its thresholds and its start from them.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtr, bdtri

__all__ = ["candidates", "fixed_sequence", "risk_bound", "risk_p_values", "rows_needed"]

CANDIDATES = 100


def rows_needed(target: float, delta: float) -> int:
    """The fewest answered rows that can show a risk of at most ``target``, by no mistake: (1 - target)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-target))


def risk_p_values(wrong: np.ndarray, answered: np.ndarray, target: float) -> np.ndarray:
    """For each threshold, the probability of so few ``wrong`` among ``answered`` if the risk were ``target``.

    P(Binomial(answered, target) <= wrong); 1 where nothing was answered.
    """
    tested = np.maximum(np.asarray(answered, np.int64), 1)
    return np.where(np.asarray(answered) > 0, bdtr(np.asarray(wrong, np.float64), tested, target), 1.0)


def risk_bound(wrong: int, answered: int, delta: float) -> float:
    """The upper end of the one-sided Clopper-Pearson interval of level 1 - ``delta``."""
    return 1.0 if wrong >= answered else float(bdtri(float(wrong), answered, delta))


def candidates(confidences: np.ndarray) -> np.ndarray:
    """At most 101 thresholds, from the strictest to 0, midway between values that occur and evenly spread over rows."""
    values = np.unique(confidences)
    ranks = np.linspace(0, len(confidences) - 1, CANDIDATES).astype(np.intp)
    at = np.unique(np.searchsorted(values, np.sort(confidences)[ranks]))
    at = at[at > 0]  # below the lowest value there is none to be midway to
    return np.append(((values[at - 1] + values[at]) / 2)[::-1], 0.0)


def fixed_sequence(
    preview: tuple[np.ndarray, np.ndarray], tested: tuple[np.ndarray, np.ndarray], target: float, delta: float
) -> int | None:
    """Which threshold to use, by (wrong, answered) counts at each, the strictest first; at the last all are answered.

    The tests start where ``preview``, counts of other rows, promises a clear rejection, and stop at the first failure.
    None if the first one fails.
    """
    ratio = tested[1][-1] / max(int(preview[1][-1]), 1)
    expected = risk_p_values(np.round(preview[0] * ratio), np.round(preview[1] * ratio), target)
    best = float(expected.min())
    # Neither the first that may pass, which a little bad luck fails, nor the surest, which may be the last that passes:
    # the strictest as sure as the geometric mean of the two.
    start = int(np.argmax(expected <= (math.sqrt(best * delta) if best < delta else best)))
    passed = risk_p_values(tested[0][start:], tested[1][start:], target) <= delta
    count = len(passed) if passed.all() else int(passed.argmin())
    return start + count - 1 if count else None
