"""What the accuracy-aware search needs of a target: its float model's units, and a quantized model that spares some."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from converters.quantize.recipes import Recipe
from converters.quantize.weights import Quantized

__all__ = ["Quantizer", "Unit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The smallest part of a model that is quantized or left in float as a whole.

    A weighted operator together with the activation fused behind it (Conv and Clip): judged apart, the two mislead.
    ``name`` is unique in the model and means something to its owner, ``operators`` are the operator types inside,
    ``weights`` counts the weight elements (no biases).
    """

    name: str
    operators: tuple[str, ...]
    weights: int


class Quantizer(Protocol):
    """One float model of one target with its calibration rows.

    ``units`` are in the model's order. `quantize` raises `QuantizationRefused` where the recipe cannot be followed; it
    does not judge accuracy. `spared` names the units whose weights it puts into INT8 but which compute in float, since
    only units in ``keep_float`` read what they give. `sensitivities` gives, for each unit, the signal-to-noise ratio in
    dB of the model's first output when that unit alone is quantized (lower: more sensitive; infinity where it changes
    nothing), without those that a tool fails on.
    """

    @property
    def target(self) -> str: ...

    @property
    def units(self) -> tuple[Unit, ...]: ...

    def quantize(self, recipe: Recipe, keep_float: Collection[str] = ()) -> bytes: ...

    def spared(self, recipe: Recipe, keep_float: Collection[str]) -> tuple[str, ...]: ...

    def inspect(self, data: bytes) -> Quantized: ...

    def sensitivities(self, recipe: Recipe) -> dict[str, float]: ...
