"""Rows to metrics. Pure.

Numbers are in points: 100 × accuracy, or 100 × R² for a regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["FLOAT", "OURS", "QuantizedRow", "metrics"]

OURS, FLOAT = "edgeship", "float"
ENOUGH_ROWS = 400  # labelled rows from which a difference of accuracies says something
CONVOLUTIONAL_PARAMETERS = 100_000
UNTOUCHED = 0.95  # of the float file: a tool that left the model as large as it was has quantized nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedRow:
    """One model × target × tool. ``tool`` is `OURS`, `FLOAT` (our fp32 artifact) or another tool's name.

    ``labelled_rows`` is 0 for an unlabelled set; ``agreement`` is with the float artifact, in the same engine.
    ``precision`` is what was reached; ``bytes_ratio`` is to the same target's fp32 artifact. What was not made or not
    measured is None, and ``reason`` says why.
    """

    model: str
    target: str
    tool: str
    status: str
    precision: str | None = None
    bytes: int | None = None
    bytes_ratio: float | None = None
    labelled_rows: int = 0
    rows: int = 0
    accuracy: float | None = None
    agreement: float | None = None
    max_abs_error: float | None = None
    p50_us: float | None = None
    aa_ratio: float | None = None
    int8_weight_share: float | None = None
    float_operators: str = ""
    convolutional: bool = False
    parameters: int = 0
    reason: str = ""


def metrics(rows: Sequence[QuantizedRow]) -> dict[str, float | int | None]:
    """The four numbers of the bench, how often there is nothing of ours to compare, and how often ours is of another
    precision than int8; None where no row counts.

    Peers that made the file no smaller do not count: what is left in float agrees with float.
    ``worst_agreement_gap_points`` looks at what the accuracy numbers do not: sets with no or too few labels.
    """
    drops, margins, gaps, sizes, missing, fell_back = [], [], [], [], 0, 0
    for ours in rows:
        if ours.tool != OURS:
            continue
        beside = [row for row in rows if (row.model, row.target) == (ours.model, ours.target)]
        peers = [row for row in beside if row.tool not in (OURS, FLOAT) and not _untouched(row)]
        if ours.bytes is None:
            missing += any(peer.bytes is not None for peer in peers)
            continue
        exact = next((row for row in beside if row.tool == FLOAT), None)
        if ours.labelled_rows >= ENOUGH_ROWS and ours.accuracy is not None and exact and exact.accuracy is not None:
            drops.append(exact.accuracy - ours.accuracy)
            best = _best(peer.accuracy for peer in peers)
            margins.append(ours.accuracy - (exact.accuracy if best is None else min(best, exact.accuracy)))
        elif ours.agreement is not None:
            best = _best(peer.agreement for peer in peers)
            if best is not None:
                gaps.append(best - ours.agreement)
        fell_back += ours.precision != "int8"
        if (
            ours.precision == "int8"
            and ours.convolutional
            and ours.parameters > CONVOLUTIONAL_PARAMETERS
            and ours.bytes_ratio is not None
        ):
            sizes.append(ours.bytes_ratio)
    return {
        "worst_drop_points": _points(max(drops, default=None)),
        "worst_vs_peer_or_float_points": _points(min(margins, default=None)),
        "worst_agreement_gap_points": _points(max(gaps, default=None)),
        "worst_bytes_ratio": None if not sizes else round(max(sizes), 4),
        "without_artifact": missing,
        "fell_back": fell_back,
    }


def _untouched(row: QuantizedRow) -> bool:
    return row.bytes_ratio is not None and row.bytes_ratio > UNTOUCHED


def _best(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _points(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 3)
