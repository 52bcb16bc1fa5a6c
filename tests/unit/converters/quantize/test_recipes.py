from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest

from converters import load_recipe, recipe_names
from converters.errors import InvalidRequest, QuantizationRefused
from converters.quantize.recipes import DEFAULT_RECIPE, recipe_from_json
from converters.quantize.weights import Quantized, refuse_low_share
from converters.targets import TARGETS


def test_every_recipe_reads_and_its_name_says_what_it_does() -> None:
    assert DEFAULT_RECIPE in recipe_names()
    for name in recipe_names():
        recipe = load_recipe(name)
        match = re.fullmatch(r"static_wi(\d+)c_ai(\d+)(?:_q(\d+))?", name)
        assert match is not None
        assert (recipe.weight_bits, recipe.activation_bits) == (int(match[1]), int(match[2]))
        assert recipe.range_coverage == float(f"0.{match[3]}" if match[3] else 1)
        assert set(recipe.operators) == set(TARGETS)
        assert recipe.name == name
        assert recipe.minimum_weight_share >= 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"weight_bits": 4},
        {"range_coverage": 0.2},
        {"minimum_weight_share": 2},
        {"operators": None},
        {"unknown": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_recipe_that_cannot_be_followed_is_refused(change: dict[str, object]) -> None:
    text = json.dumps(asdict(load_recipe()) | change)
    with pytest.raises(InvalidRequest):
        recipe_from_json(text)


def test_a_recipe_that_is_not_json_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a recipe"):
        recipe_from_json("{")


def test_int8_means_at_least_nine_tenths_of_the_weights() -> None:
    recipe = load_recipe()
    refuse_low_share(Quantized(weights=1000, quantized=900, float_operators=()), recipe)
    with pytest.raises(QuantizationRefused, match="only 90% of 1000"):
        refuse_low_share(Quantized(weights=1000, quantized=899, float_operators=("Conv",)), recipe)
    with pytest.raises(QuantizationRefused):
        refuse_low_share(Quantized(weights=0, quantized=0, float_operators=()), recipe)
