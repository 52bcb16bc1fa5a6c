"""The candidates of a search: each made and measured once, within a budget, and written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from converters.errors import CheckFailed, ConversionFailed, QuantizationRefused
from converters.quantize.base import Quantizer
from converters.quantize.found import Ended, Outcome, Tried
from converters.quantize.recipes import Recipe
from converters.quantize.weights import Quantized
from edge_runtime.bundle.manifest import Precision

__all__ = ["Candidate", "Evaluate", "Progress", "Trials"]

ROUNDING = 1e-9  # 1 - 0.995 is a little more than 0.005
Evaluate = Callable[[bytes], float]
Progress = Callable[[str, int, int], None]  # what is done next, candidates done, candidates at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that was made and measured."""

    recipe: Recipe
    kept: frozenset[str]
    data: bytes
    drop: float
    error: float | None
    quantized: Quantized

    @property
    def distance(self) -> float:
        """From the source, by the finest measure that there is."""
        return self.drop if self.error is None else self.error


class Trials:
    """Makes and measures candidates, each once and within the budget, and keeps the record."""

    def __init__(
        self,
        quantizer: Quantizer,
        evaluate: Evaluate,
        error: Evaluate | None,
        uncertainty: Evaluate,
        limit: float,
        minimum_share: float,
        budget: int,
        seconds: float,
        clock: Callable[[], float],
        progress: Progress | None,
    ) -> None:
        self.quantizer = quantizer
        self.tried: list[Tried] = []
        self.ended: Ended | None = None
        self._evaluate = evaluate
        self._error = error
        self._uncertainty = uncertainty
        self._limit = limit + ROUNDING
        self._minimum_share = minimum_share
        self._budget = budget
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._progress = progress
        self._measured = 0
        self._weights = {unit.name: unit.weights for unit in quantizer.units}
        self._made: dict[tuple[str, frozenset[str]], Candidate | None] = {}

    def start(self) -> None:
        """A new precision has the whole budget, and the whole time."""
        self._measured, self.ended, self._began = 0, None, self._clock()

    def holds(self, candidate: Candidate) -> bool:
        return candidate.drop <= self._limit

    def holds_clearly(self, candidate: Candidate) -> bool:
        """By a standard error of its drop, which is asked for only where it decides: it takes a while."""
        return self.holds(candidate) and candidate.drop + self.uncertainty(candidate) <= self._limit

    def uncertainty(self, candidate: Candidate) -> float:
        return float(self._uncertainty(candidate.data))

    def go_on(self) -> bool:
        """Whether there is time for candidates with units in float; if not, the record says that it ended."""
        if self.ended is None and self._late():
            self.ended = "time"
        return self.ended is None

    def _late(self) -> bool:
        return self._clock() - self._began >= self._seconds

    def drop(self, data: bytes) -> float:
        drop = float(self._evaluate(data))
        return math.inf if math.isnan(drop) else drop

    def error(self, data: bytes) -> float | None:
        """None where there is no finer measure than the drop."""
        return None if self._error is None else float(self._error(data))

    def make(self, recipe: Recipe, kept: frozenset[str]) -> Candidate | None:
        """None where the recipe cannot be followed, too few weights are in INT8, or the budget is spent."""
        key = (recipe.name, kept)
        if key not in self._made:
            if self._measured >= self._budget:
                self.ended = "candidates"
                return None
            if kept and self._late():
                self.ended = "time"
                return None
            if self._progress is not None:
                floats = f", {len(kept)} in float" if kept else ""
                self._progress(f"{recipe.precision}: {recipe.name}{floats}", self._measured, self._budget)
            self._made[key] = self._candidate(recipe, kept)
        return self._made[key]

    def record(
        self,
        precision: Precision,
        recipe: str | None,
        kept: frozenset[str],
        *,
        drop: float | None = None,
        error: float | None = None,
        quantized: Quantized | None = None,
        size: int | None = None,
        reason: str | None = None,
    ) -> bool:
        """Write a candidate down; whether it holds."""
        outcome: Outcome = "refused" if drop is None else "holds" if drop <= self._limit else "over"
        self.tried.append(
            Tried(
                precision=precision,
                recipe=recipe,
                kept=tuple(sorted(kept)),
                drop=drop,
                error=error,
                weight_share=None if quantized is None else quantized.share,
                bytes=size,
                outcome=outcome,
                reason=reason,
            )
        )
        return outcome == "holds"

    def _candidate(self, recipe: Recipe, kept: frozenset[str]) -> Candidate | None:
        least = max(recipe.minimum_weight_share, self._minimum_share if recipe.precision == "int8" else 0.0)
        if self._share_at_most(kept) < least:  # known before it is made, which takes seconds for a large model
            reason = f"at most {self._share_at_most(kept):.1%} of the weights in INT8, less than {least:.0%}"
            self.record(recipe.precision, recipe.name, kept, reason=reason)
            return None
        try:
            data = self.quantizer.quantize(recipe, kept)
        except (QuantizationRefused, ConversionFailed, CheckFailed) as error:
            # Where a tool crashes over one candidate, or makes a file that does not load, another may be fine.
            self.record(recipe.precision, recipe.name, kept, reason=str(error).partition("\n")[0])
            return None
        quantized = self.quantizer.inspect(data)
        if quantized.share < least:
            reason = f"{quantized.share:.1%} of the weights in INT8, less than {least:.0%}"
            self.record(recipe.precision, recipe.name, kept, quantized=quantized, size=len(data), reason=reason)
            return None
        self._measured += 1
        drop, error = self.drop(data), self.error(data)
        self.record(recipe.precision, recipe.name, kept, drop=drop, error=error, quantized=quantized, size=len(data))
        return Candidate(recipe=recipe, kept=kept, data=data, drop=drop, error=error, quantized=quantized)

    def _share_at_most(self, kept: frozenset[str]) -> float:
        total = sum(self._weights.values())
        return 1 - sum(self._weights[name] for name in kept) / total if total else 1.0
