"""Recipes: what to quantize and how, as data files whose names decode.

``static`` activations are quantized with ranges found beforehand (`dynamic`: at run time); ``wi8`` weights are 8-bit
integers, ``c`` with one scale a channel; ``ai8`` activations are 8-bit integers; ``q99`` at the end: ranges cover the
extremes of 99 % of the calibration rows, not of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

from converters.errors import InvalidRequest

__all__ = ["DEFAULT_RECIPE", "Recipe", "load_recipe", "recipe_from_json", "recipe_names"]

DEFAULT_RECIPE = "static_wi8c_ai8_q99"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``range_coverage`` is the share of calibration rows whose extremes a range must hold. ``operators`` lists, for
    each target, the operator types that are quantized where their weights are constant; all others stay float.
    ``minimum_weight_share`` is the share of those operators' weight elements that must end up in integers."""

    name: str
    precision: str
    weight_bits: int
    weight_granularity: str
    activation_bits: int
    range_coverage: float
    minimum_weight_share: float
    operators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("converters.quantize").joinpath("recipes")
    return tuple(sorted(item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json")))


def load_recipe(name: str = DEFAULT_RECIPE) -> Recipe:
    """A recipe by name. Raises `InvalidRequest` with the names that exist."""
    if name not in recipe_names():
        raise InvalidRequest(f"no recipe {name!r}; there are {', '.join(recipe_names())}")
    path = resources.files("converters.quantize").joinpath("recipes", f"{name}.json")
    return recipe_from_json(path.read_text(encoding="utf-8"))


def recipe_from_json(text: str) -> Recipe:
    """Raises `InvalidRequest` for a recipe that cannot be followed."""
    try:
        values = json.loads(text)
        values["operators"] = {target: tuple(kinds) for target, kinds in values["operators"].items()}
        recipe = Recipe(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"not a recipe: {error}") from error
    if (recipe.weight_bits, recipe.activation_bits, recipe.weight_granularity) != (8, 8, "channel"):
        raise InvalidRequest(
            f"recipe {recipe.name}: only 8-bit weights by channel and 8-bit activations in this version"
        )
    if not 0.5 <= recipe.range_coverage <= 1 or not 0 <= recipe.minimum_weight_share <= 1:
        raise InvalidRequest(f"recipe {recipe.name}: range_coverage is 0.5 to 1, minimum_weight_share 0 to 1")
    return recipe
