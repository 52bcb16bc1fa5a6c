"""The input guard of a release, as data: what `docs/spec/guard.md` computes a score from. FORMAT.md is normative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Guard", "GuardPart", "GuardReduction", "GuardScore"]

GuardScore = Literal["mahalanobis"]
GuardReduction = Literal["value", "mean", "log_std", "min", "max", "roughness"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardPart:
    """Summaries of one input: each of ``reduce`` for each position of ``axis``, over all other axes, of which every
    ``stride``-th element counts.

    ``axis`` is one of an example (the batch axis left out), or None: then the whole example is one channel. The
    reduction ``value`` stands alone: every ``stride``-th element of the flattened example is a summary.
    """

    input: str
    reduce: tuple[GuardReduction, ...]
    axis: int | None = None
    stride: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How far an input lies from the training data, and the distance above which it is refused or routed.

    The summaries s of ``parts``, n numbers, become z = asinh((s - ``center``) / ``scale``). The score is
    sqrt(d² / n) with d² = Σ (direction · z)² / variance + (|z|² - Σ (direction · z)²) / ``residual``, where
    ``directions`` are unit vectors at right angles. A score above ``threshold``, or one that is NaN, is outside.

    ``threshold`` was chosen on ``rows`` held-out training rows so that a share of ``false_refusal`` of such rows is
    refused; ``data_sha256`` is the digest of the data.
    """

    score: GuardScore
    parts: tuple[GuardPart, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    variances: tuple[float, ...]
    residual: float
    threshold: float
    false_refusal: float
    rows: int
    data_sha256: str
