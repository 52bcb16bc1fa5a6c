"""One converted file and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ConvertedArtifact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedArtifact:
    """One file for one engine with what was measured of it on the evaluation rows.

    ``accuracy`` and ``source_accuracy`` are None without labels; ``p50_us`` is None where the engine does not run here
    (Core ML); ``temperature``, ``threshold`` and ``confidence_sha256`` are None without confidence data.
    ``mismatched`` counts output values that are finite in the artifact or in its source only. ``weight_share`` is the
    share of convolution and matrix weights in INT8 (0 for fp32).
    """

    target: str
    precision: str
    path: Path
    bytes: int
    sha256: str
    operators: tuple[str, ...]
    float_operators: tuple[str, ...]
    weight_share: float
    recipe: str | None
    minimum_engine_version: str
    accuracy: float | None
    source_accuracy: float | None
    rows: int
    max_abs_error: float
    mean_abs_error: float
    mismatched: int
    agreement: float
    p50_us: float | None
    evaluated_with: str
    machine: str
    temperature: float | None
    threshold: float | None
    confidence_sha256: str | None

    @property
    def kind(self) -> str:
        return f"{self.target}/{self.precision}"
