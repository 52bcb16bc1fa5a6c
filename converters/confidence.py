"""From a classifier's outputs to a confidence, and the threshold below which an answer is deferred. Pure.

The rules are those of docs/spec/deferral.md, for many rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.errors import InvalidRequest, LabelMismatch, TooLittleData, WrongShape
from converters.risk import candidates, fixed_sequence, risk_bound, rows_needed
from edge_runtime.bundle.manifest import Score

__all__ = ["ConfidenceChoice", "choose_confidence", "confidence_of", "fit_temperature", "threshold_for_deferral"]

LOWEST, HIGHEST = 0.2, 100.0  # temperatures; below, float32 softmax saturates and confidences no longer rank
STEPS = 60
LEAST_PROBABILITY = 1e-7  # what float32 softmax can tell from 0; an INT8 one writes 0 for anything below 1/256
TEMPERATURE_SHARE = 0.2  # of the rows; the bound needs its rows more, see `converters.risk`
DEFAULT_TARGET = 0.05
METHOD = "fixed-sequence testing of exact binomial p-values (Learn then Test, arXiv:2110.01052)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceChoice:
    """A temperature, and a threshold with what it promises.

    With probability at least 1 - ``delta``, the risk (share of wrong answers among those not deferred) of rows drawn as
    these were is at most ``target_risk``. ``bound`` is the Clopper-Pearson bound at the threshold, ``coverage`` the
    share answered and ``empirical_risk`` the share of them that is wrong, all on the ``rows_bound`` rows that T was not
    fitted on (``rows_temperature`` others). ``reason`` says what a person must know besides.

    Where no threshold could be shown to hold the target, ``threshold`` is 1: the device defers every answer whose
    confidence is not exactly 1. Then ``target_risk``, ``delta`` and ``bound`` are None, for nothing is promised.
    """

    temperature: float
    threshold: float
    target_risk: float | None
    delta: float | None
    bound: float | None
    coverage: float
    empirical_risk: float | None
    rows_temperature: int
    rows_bound: int
    method: str
    reason: str | None


def choose_confidence(
    outputs: np.ndarray,
    labels: np.ndarray,
    *,
    score: Score = "msp",
    groups: np.ndarray | None = None,
    target_risk: float | None = DEFAULT_TARGET,
    delta: float = 0.1,
    seed: int = 0,
) -> ConfidenceChoice:
    """Temperature and threshold for an artifact from its ``outputs`` ``(rows, classes)`` for rows with ``labels``.

    A fifth of the rows, drawn with ``seed``, give the temperature and the order of the tests; the others are tested on.
    With ``groups`` (rows,) no group is in both parts, except if there is only one. A ``target_risk`` of None is half
    of the error on the first part, but at least 5 %: a bad model that is half as wrong where it is trusted is still of
    use, and below 5 % small splits can show nothing.

    Rows whose outputs are not finite are never answered. Raises `TooLittleData` where even a model without a mistake
    could not be shown to hold the target, `InvalidRequest`, `WrongShape` and `LabelMismatch`.
    """
    outputs, labels = _checked(outputs, labels)
    if target_risk is not None and not 0 < target_risk < 1:
        raise InvalidRequest(f"a target risk is between 0 and 1, not {target_risk}")
    if not 0 < delta < 1:
        raise InvalidRequest(f"delta is between 0 and 1, not {delta}")
    fit, test = _parts(len(labels), groups, seed)
    finite = np.isfinite(outputs).all(axis=1)
    wrong = outputs.argmax(axis=1) != labels
    _check_rows(int(finite[test].sum()), len(labels), target_risk or DEFAULT_TARGET, delta)

    temperature = fit_temperature(outputs[fit], labels[fit], score=score)
    confidences = np.where(finite, confidence_of(outputs, temperature, score=score), -1.0)  # -1: below any threshold
    if target_risk is None:
        target_risk = max(DEFAULT_TARGET, round(float(wrong[fit][finite[fit]].mean()) / 2, 3))
        _check_rows(int(finite[test].sum()), len(labels), target_risk, delta)
    grid = candidates(confidences[fit][finite[fit]])
    preview, tested = (_counts(confidences[part], wrong[part], grid) for part in (fit, test))
    chosen = fixed_sequence(preview, tested, target_risk, delta)

    threshold = 1.0 if chosen is None else float(grid[chosen])
    answered = confidences[test] >= threshold
    mistakes = int(wrong[test][answered].sum())
    reason = [] if groups is None else [_about_groups(groups, fit, test)]
    if chosen is None:
        reason.insert(
            0,
            f"no threshold was shown to keep the risk at {target_risk:.1%} with {len(test)} rows, so that every answer "
            "without a confidence of exactly 1 is deferred; give more rows or a higher target",
        )
    return ConfidenceChoice(
        temperature=temperature,
        threshold=threshold,
        target_risk=None if chosen is None else target_risk,
        delta=None if chosen is None else delta,
        bound=None if chosen is None else risk_bound(mistakes, int(answered.sum()), delta),
        coverage=float(answered.mean()),
        empirical_risk=mistakes / int(answered.sum()) if answered.any() else None,
        rows_temperature=len(fit),
        rows_bound=len(test),
        method=f"{METHOD} over {len(grid)} thresholds on {len(test)} rows, none of the {len(fit)} of the temperature",
        reason="; ".join(reason) or None,
    )


def confidence_of(outputs: np.ndarray, temperature: float, *, score: Score = "msp") -> np.ndarray:
    """Confidence of each row: ``(rows, classes)`` → ``(rows,)``, 0 to 1. A row that is not finite has confidence 0.

    ``msp``: largest softmax probability of logits / ``temperature``; ``probability``: largest share of
    p ** (1 / ``temperature``), 0 where no p is above 0.
    """
    values = outputs.astype(np.float64)
    finite = np.asarray(np.isfinite(values).all(axis=-1))
    values = np.where(finite[..., np.newaxis], values, 0.0)
    largest = values.max(axis=-1, keepdims=True)
    if score == "msp":
        return np.where(finite, 1.0 / np.exp((values - largest) / temperature).sum(axis=-1), 0.0)
    usable = largest > 0
    shares = np.maximum(values, 0.0) / np.where(usable, largest, 1.0)
    total = (shares ** (1.0 / temperature)).sum(axis=-1)
    return np.where(usable[..., 0], 1.0 / np.where(usable[..., 0], total, 1.0), 0.0)


def fit_temperature(outputs: np.ndarray, labels: np.ndarray, *, score: Score = "msp") -> float:
    """The temperature that minimizes the negative log likelihood (Guo et al. 2017, section 4.2).

    The loss is convex in 1/T, so its slope is bisected. Rows that are not finite do not count. Rows without a single
    mistake say nothing about how often the model is wrong; T is 1 then. Logits of probabilities are their logarithms.
    """
    finite = np.isfinite(outputs).all(axis=1)
    z, y = outputs[finite].astype(np.float64), labels[finite]
    if len(z) < 2:
        raise TooLittleData("fewer than two rows with finite outputs to fit a temperature on")
    if score == "probability":
        z = np.log(np.maximum(z, LEAST_PROBABILITY))
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
    """τ such that a ``share`` of these confidences lies below it; where confidences are equal, fewer do.

    It bounds no risk: a number of answers that the cloud can take is what it is for. See `choose_confidence`.
    """
    if not 0 <= share <= 1:
        raise InvalidRequest(f"a share of deferred answers is between 0 and 1, not {share}")
    ordered = np.sort(np.asarray(confidences, dtype=np.float64))
    count = round(share * len(ordered))
    if count == 0:
        return 0.0
    if count == len(ordered):
        return 1.0
    return float((ordered[count - 1] + ordered[count]) / 2)


def _checked(outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if outputs.ndim != 2 or outputs.shape[1] < 1:
        raise WrongShape(f"a confidence needs outputs (rows, classes), not {outputs.shape}")
    if labels.shape != outputs.shape[:1] or labels.dtype.kind not in "iu":
        raise LabelMismatch(f"labels {labels.dtype} {labels.shape} for {len(outputs)} rows")
    if labels.size and not 0 <= labels.min() <= labels.max() < outputs.shape[1]:
        raise LabelMismatch(f"labels range from {labels.min()} to {labels.max()}, outputs have {outputs.shape[1]}")
    return outputs, labels


def _parts(rows: int, groups: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for the temperature and for the bound."""
    rng = np.random.default_rng(seed)
    if groups is not None:
        if groups.shape != (rows,):
            raise LabelMismatch(f"groups of shape {groups.shape} for {rows} rows")
        names, group = np.unique(groups, return_inverse=True)
        if len(names) > 1:
            order = rng.permutation(len(names))
            filled = np.cumsum(np.bincount(group)[order]) / rows
            # As near to the share as whole groups come, and one at least on each side.
            count = min(int(np.abs(filled - TEMPERATURE_SHARE).argmin()) + 1, len(names) - 1)
            chosen = np.isin(group, order[:count])
            return np.flatnonzero(chosen), np.flatnonzero(~chosen)
    order = rng.permutation(rows)
    count = round(TEMPERATURE_SHARE * rows)
    return np.sort(order[:count]), np.sort(order[count:])


def _check_rows(usable: int, rows: int, target: float, delta: float) -> None:
    needed = rows_needed(target, delta)
    if usable < needed:
        in_all = max(round(needed / (1 - TEMPERATURE_SHARE)), rows + needed - usable)
        raise TooLittleData(
            f"{usable} of {rows} rows can show how often trusted answers are wrong, as the others give the "
            f"temperature. A risk of {target:.1%} with delta {delta:g} takes at least {needed} to be shown, even of a "
            f"model that is never wrong: give about {in_all} rows, or allow a higher risk"
        )


def _counts(confidences: np.ndarray, wrong: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(wrong, answered) at each threshold of ``grid``, which falls."""
    order = np.argsort(-confidences, kind="stable")
    answered = np.searchsorted(-confidences[order], -grid, side="right")
    return np.concatenate([[0], np.cumsum(wrong[order])])[answered], answered


def _about_groups(groups: np.ndarray, fit: np.ndarray, test: np.ndarray) -> str:
    counts = [len(np.unique(groups[part])) for part in (fit, test)]
    if len(np.unique(groups)) == 1:
        return "all rows are of one group, and the bound says nothing about another"
    return (
        f"the rows are of {counts[0]} + {counts[1]} groups, and rows of a group resemble each other: the bound counts "
        "rows, and says nothing about a new group"
    )
