from __future__ import annotations

import pytest

from converters.sources.precision import reached


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, "fp32"),
        ({"int8": 100}, "int8"),
        ({"int8": 90, "fp32": 10}, "int8"),
        ({"int8": 89, "fp32": 11}, "fp32"),
        ({"int8": 85, "int8-dynamic": 15}, "int8-dynamic"),
        ({"fp16": 95, "fp32": 5}, "fp16"),
        ({"int8-weights": 92, "int8": 8}, "int8-weights"),
    ],
)
def test_a_model_is_of_the_widest_precision_that_more_than_a_tenth_of_its_weights_have(
    weights: dict[str, int], expected: str
) -> None:
    assert reached(weights) == expected
