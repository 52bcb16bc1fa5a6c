"""How much of a model is in INT8, and the rule that decides whether it may be called int8."""

from __future__ import annotations

from dataclasses import dataclass

from converters.errors import QuantizationRefused
from converters.quantize.recipes import Recipe

__all__ = ["Quantized", "refuse_low_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """``weights`` and ``quantized`` count weight elements of convolutions and matrix products (no biases).
    ``float_operators`` are the operator types that still compute in float."""

    weights: int
    quantized: int
    float_operators: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.quantized / self.weights if self.weights else 0.0


def refuse_low_share(result: Quantized, recipe: Recipe) -> None:
    """Raises `QuantizationRefused` if too few of the weights are integers."""
    if result.share < recipe.minimum_weight_share:
        raise QuantizationRefused(
            f"only {result.share:.0%} of {result.weights} weight elements are in INT8, less than the "
            f"{recipe.minimum_weight_share:.0%} that recipe {recipe.name} promises; "
            f"float operators: {', '.join(result.float_operators) or 'none'}"
        )
