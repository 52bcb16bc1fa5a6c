"""What the search for a precision found, and everything that it tried on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from converters.quantize.base import Unit
from converters.quantize.weights import Quantized
from edge_runtime.bundle.manifest import Precision

__all__ = ["FLOAT", "Ended", "Found", "Kept", "Outcome", "Tried"]

FLOAT: Precision = "fp32"
Outcome = Literal["holds", "over", "refused"]
Ended = Literal["time", "candidates"]  # what a search that did not come to its own end ran out of


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One candidate, as the report has it too. ``kept`` names the units left in float. ``recipe`` is None for the float
    model; ``drop`` and ``error``, which chose between those that hold, are of the held-out rows. What was not known yet
    when a candidate was refused, for ``reason``, is None. One of all is ``chosen``."""

    precision: Precision
    recipe: str | None
    kept: tuple[str, ...]
    drop: float | None
    error: float | None
    weight_share: float | None
    bytes: int | None
    outcome: Outcome
    reason: str | None = None
    chosen: bool = False

    @property
    def note(self) -> str:
        """Why it is not the one, in a few words; nothing where it holds."""
        return self.reason or {"holds": "", "over": "over the limit", "refused": "refused"}[self.outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A unit left in float: its ``sensitivity``, dB when it alone is quantized, and the ``drop_without``, measured with
    it quantized too and the other kept units in float, give or take ``uncertainty_without``, its standard error. Where
    that was not measured, ``drop_without`` is None, and ``ended`` says what the search ran out of before (None where
    such a model could not be made)."""

    unit: Unit
    sensitivity: float
    drop_without: float | None
    uncertainty_without: float = 0.0
    ended: Ended | None = None

    @property
    def reason(self) -> str:
        """Why it stays float, for the report."""
        if self.drop_without is None:
            why = f"the search ran out of {self.ended}" if self.ended else "no such model could be made"
            measured = f"not measured without it, since {why}"
        else:
            about = f" ± {self.uncertainty_without:.4f}" if self.uncertainty_without else ""
            measured = f"quantized too, the drop would be {self.drop_without:.4f}{about}"
        return f"{self.sensitivity:.1f} dB when quantized alone; {measured}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The model chosen, its precision and ``drop``.

    ``holds`` is false only where not even the float model stays within the limit; ``data`` is that model then, and
    ``recipe`` is None, as whenever the float model is what was found. ``spared`` names the units that compute in float
    with weights in INT8, beside those of ``kept``. ``exhausted`` has the precisions whose search ran
    out of time or of candidates. ``tried`` is every candidate in order.
    """

    data: bytes
    precision: Precision
    recipe: str | None
    drop: float
    holds: bool
    quantized: Quantized
    kept: tuple[Kept, ...]
    spared: tuple[str, ...]
    exhausted: Mapping[Precision, Ended]
    tried: tuple[Tried, ...]
