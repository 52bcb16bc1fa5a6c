"""Recipes: what to quantize and how, as data files whose names decode.

``static`` activations are quantized with ranges found beforehand, ``dynamic`` ones at run time; ``weights`` leaves
activations alone. ``wi8`` weights are 8-bit integers, ``c`` with one scale a channel; ``ai8`` activations are 8-bit
integers, ``af32`` floats (``dynamic`` rounds them inside each operator). At the end: ``q99``, ranges cover the extremes
of 99 % of the calibration rows, ``q999`` of 99.9 %, nothing of all; ``mse``, ranges have the least squared rounding
error. ``float16`` stores weights as half-precision floats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

from converters.errors import InvalidRequest
from edge_runtime.bundle.manifest import Precision

__all__ = [
    "DEFAULT_RECIPE",
    "LADDER",
    "Recipe",
    "ladder_from",
    "load_recipe",
    "recipe_from_json",
    "recipe_names",
    "recipes_of",
]

DEFAULT_RECIPE = "static_wi8c_ai8_q99"
# Each precision with the one to try after it.
LADDER: tuple[Precision, ...] = ("int8", "int8-dynamic", "int8-weights", "fp16", "fp32")
_BITS = {"int8": (8, 8), "int8-dynamic": (8, 32), "int8-weights": (8, 32), "fp16": (16, 32)}  # weights, activations
_RANGE_METHODS = ("coverage", "mse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one precision is reached.

    ``weight_bits`` and ``activation_bits`` are 8, 16 or 32; more than 8 means floats. With the ``range_method``
    ``coverage``, ``range_coverage`` is the share of calibration rows whose extremes a range must hold; ``mse`` narrows
    ranges further, to the least squared error of rounding and clipping. ``operators`` lists, for each target, the
    operator types that are quantized where their weights are constant; all others stay float, and an empty list says
    that the target does not have this precision. ``minimum_weight_share`` is the share of the weight elements of
    convolutions and matrix products that must end up in integers.
    """

    name: str
    precision: Precision
    weight_bits: int
    weight_granularity: str
    activation_bits: int
    range_coverage: float
    minimum_weight_share: float
    range_method: str = "coverage"
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


def recipes_of(precision: str) -> tuple[Recipe, ...]:
    """The package's recipes for a precision, the default one first; none for fp32."""
    recipes = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.precision == precision]
    return tuple(sorted(recipes, key=lambda recipe: recipe.name != DEFAULT_RECIPE))


def ladder_from(precision: str) -> tuple[Recipe, ...]:
    """The recipes of a precision and of those to try after it, in order. Raises `InvalidRequest` for an unknown one."""
    if precision not in LADDER:
        raise InvalidRequest(f"no precision {precision!r}; there are {', '.join(LADDER)}")
    return tuple(recipe for each in LADDER[LADDER.index(precision) :] for recipe in recipes_of(each))


def recipe_from_json(text: str) -> Recipe:
    """Raises `InvalidRequest` for a recipe that cannot be followed."""
    try:
        values = json.loads(text)
        values["operators"] = {target: tuple(kinds) for target, kinds in values["operators"].items()}
        recipe = Recipe(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"not a recipe: {error}") from error
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    def refuse(key: str, allowed: str) -> InvalidRequest:
        return InvalidRequest(f"recipe {recipe.name}: {key} is {allowed}, not {getattr(recipe, key)!r}")

    if recipe.precision not in _BITS:
        raise refuse("precision", " or ".join(_BITS))
    weight_bits, activation_bits = _BITS[recipe.precision]
    if recipe.weight_bits != weight_bits:
        raise refuse("weight_bits", f"{weight_bits} for {recipe.precision}")
    if recipe.activation_bits != activation_bits:
        raise refuse("activation_bits", f"{activation_bits} for {recipe.precision}")
    if recipe.weight_granularity != ("channel" if weight_bits == 8 else "element"):
        raise refuse("weight_granularity", "channel (element for fp16)")
    if recipe.range_method not in _RANGE_METHODS:
        raise refuse("range_method", " or ".join(_RANGE_METHODS))
    if not 0.5 <= recipe.range_coverage <= 1:
        raise refuse("range_coverage", "0.5 to 1")
    if not 0 <= recipe.minimum_weight_share <= 1:
        raise refuse("minimum_weight_share", "0 to 1")
    if recipe.precision == "int8" and recipe.minimum_weight_share < 0.9:
        raise refuse("minimum_weight_share", "at least 0.9 for int8, which promises that much to whoever reads it")
