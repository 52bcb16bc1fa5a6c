"""Temperature and threshold of one artifact, as asked for: by a bound on the risk, or by a share to defer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.confidence import choose_confidence, confidence_of, fit_temperature, threshold_for_deferral
from converters.data import Dataset
from edge_runtime.bundle.manifest import Score

__all__ = ["Chosen", "ConfidenceRule", "choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceRule:
    """At most ``target_risk`` of the trusted answers wrong, with probability 1 − ``delta``; or, with
    ``deferral_share``, that share of the split deferred, which bounds no risk."""

    target_risk: float = 0.05
    delta: float = 0.1
    deferral_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """As the manifest's confidence block has it. ``note`` is for a person: what the bound cannot promise here."""

    score: Score
    temperature: float
    threshold: float
    target_risk: float | None
    delta: float | None
    coverage: float
    method: str
    rows: int
    sha256: str
    note: str = ""


def choose(outputs: np.ndarray, data: Dataset, rule: ConfidenceRule, *, probabilities: bool) -> Chosen:
    """From an artifact's outputs ``(rows, classes)`` for labelled ``data``. Raises `TooLittleData`."""
    assert data.labels is not None
    score: Score = "probability" if probabilities else "msp"
    if rule.deferral_share is not None:
        temperature = fit_temperature(outputs, data.labels, score=score)
        confidences = confidence_of(outputs, temperature, score=score)
        threshold = threshold_for_deferral(confidences, rule.deferral_share)
        return Chosen(
            score=score,
            temperature=temperature,
            threshold=threshold,
            target_risk=None,
            delta=None,
            coverage=float((confidences >= threshold).mean()),
            method=f"defers {rule.deferral_share:.0%} of the split",
            rows=data.rows,
            sha256=data.sha256,
        )
    choice = choose_confidence(
        outputs, data.labels, score=score, groups=data.groups, target_risk=rule.target_risk, delta=rule.delta
    )
    return Chosen(
        score=score,
        temperature=choice.temperature,
        threshold=choice.threshold,
        target_risk=choice.target_risk,
        delta=choice.delta,
        coverage=choice.coverage,
        method=choice.method,
        rows=data.rows,
        sha256=data.sha256,
        note=choice.reason or "",
    )
