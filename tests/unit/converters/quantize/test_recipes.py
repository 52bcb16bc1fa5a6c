from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest

from converters.errors import InvalidRequest, QuantizationRefused
from converters.quantize.recipes import DEFAULT_RECIPE, LADDER, ladder_from, load_recipe, recipe_from_json, recipe_names
from converters.quantize.weights import Quantized, refuse_low_share
from converters.targets import TARGETS

BITS = {"static": "int8", "dynamic": "int8-dynamic", "weights": "int8-weights"}


def test_every_recipe_reads_and_its_name_says_what_it_does() -> None:
    assert DEFAULT_RECIPE in recipe_names()
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert set(recipe.operators) == set(TARGETS)
        if name == "float16":
            assert (recipe.precision, recipe.weight_bits, recipe.minimum_weight_share) == ("fp16", 16, 0)
            continue
        match = re.fullmatch(r"(static|dynamic|weights)_wi(\d+)c_a[if](\d+)(?:_q(\d+)|_(mse))?", name)
        assert match is not None
        assert recipe.precision == BITS[match[1]]
        assert (recipe.weight_bits, recipe.activation_bits) == (int(match[2]), int(match[3]))
        assert recipe.range_coverage == float(f"0.{match[4]}" if match[4] else 1)
        assert recipe.range_method == (match[5] or "coverage")
        assert recipe.minimum_weight_share >= 0.9


def test_the_ladder_goes_down_from_what_was_asked_for_and_starts_with_the_default() -> None:
    assert ladder_from("int8")[0].name == DEFAULT_RECIPE
    assert list(dict.fromkeys(recipe.precision for recipe in ladder_from("int8"))) == list(LADDER[:-1])
    assert [recipe.precision for recipe in ladder_from("int8-weights")] == ["int8-weights", "fp16"]
    assert ladder_from("fp32") == ()
    with pytest.raises(InvalidRequest, match="int4"):
        ladder_from("int4")


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "int4"},
        {"weight_bits": 4},
        {"activation_bits": 16},
        {"weight_granularity": "tensor"},
        {"range_method": "entropy"},
        {"range_coverage": 0.2},
        {"minimum_weight_share": 2},
        {"minimum_weight_share": 0.5},
        {"operators": None},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_followed_is_refused_with_the_key(change: dict[str, object]) -> None:
    text = json.dumps(asdict(load_recipe()) | change)
    with pytest.raises(InvalidRequest, match="not a recipe" if "operators" in change else next(iter(change))):
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
