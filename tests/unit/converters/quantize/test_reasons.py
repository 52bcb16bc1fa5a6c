from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from converters.quantize.base import Unit
from converters.quantize.found import Ended, Found, Kept, Outcome, Tried
from converters.quantize.reasons import why_not
from converters.quantize.weights import Quantized
from edge_runtime.bundle.manifest import Precision


def tried(precision: Precision, drop: float | None, outcome: Outcome, reason: str | None = None) -> Tried:
    return Tried(
        precision=precision,
        recipe=None if precision == "fp32" else precision,
        kept=(),
        drop=drop,
        error=None,
        weight_share=None,
        bytes=None,
        outcome=outcome,
        reason=reason,
    )


def found(precision: Precision, *candidates: Tried, exhausted: Mapping[Precision, Ended] | None = None) -> Found:
    return Found(
        data=b"",
        precision=precision,
        recipe=None,
        drop=0.0,
        holds=True,
        quantized=Quantized(weights=1, quantized=0, float_operators=()),
        kept=(),
        spared=(),
        exhausted=exhausted or {},
        tried=candidates,
    )


OVER, FLOAT = tried("int8", 0.0625, "over"), tried("fp32", 0.0, "holds")


def test_over_the_limit_says_what_was_lost_and_what_each_search_ran_out_of() -> None:
    result = found("fp16", OVER, OVER, FLOAT, exhausted={"int8": "time", "int8-weights": "candidates"})
    assert why_not(result, "int8", 0.02, 48) == (
        "no int8 of 2 candidates stayed within 0.02 on 48 held-out calibration rows (the best lost 0.0625); reached "
        "fp16; the search at int8 ran out of time; the search at int8-weights ran out of candidates"
    )


def test_within_the_limit_but_not_surely_says_so_and_that_time_ended() -> None:
    result = found("int8-weights", tried("int8", 0.015, "holds"), FLOAT, exhausted={"int8": "time"})
    sentence = why_not(result, "int8", 0.02, 48)
    assert "within the limit of 0.02 by less than a standard error" in sentence
    assert sentence.endswith("; the search at int8 ran out of time")


def test_a_search_that_came_to_its_end_says_nothing_of_it() -> None:
    assert "ran out" not in why_not(found("fp32", OVER, FLOAT), "int8", 0.02, 48)


def test_nothing_to_quantize_and_nothing_possible() -> None:
    assert "no weights" in why_not(found("fp32", FLOAT), "int8", 0.02, 48)
    refused = [tried("int8", None, "refused", reason) for reason in ("operator Foo", "operator Foo", "too little")]
    sentence = why_not(found("fp32", *refused, FLOAT), "int8", 0.02, 48)
    assert sentence == "int8 was not possible (operator Foo; other recipes fail for other reasons); reached fp32"
    assert "no recipe" in why_not(found("fp32", tried("fp16", 1.0, "over"), FLOAT), "int8", 0.02, 48)


def test_a_drop_that_is_not_finite_is_said() -> None:
    assert "lost inf" in why_not(found("fp32", tried("int8", math.inf, "over"), FLOAT), "int8", 0.02, 48)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"drop_without": 0.03, "uncertainty_without": 0.001}, "quantized too, the drop would be 0.0300 ± 0.0010"),
        ({"drop_without": None, "ended": "time"}, "not measured without it, since the search ran out of time"),
        ({"drop_without": None, "ended": "candidates"}, "since the search ran out of candidates"),
        ({"drop_without": None}, "since no such model could be made"),
    ],
)
def test_what_stayed_float_says_what_was_measured_without_it(kept: dict[str, Any], said: str) -> None:
    unit = Unit(name="head", operators=("MatMul",), weights=10)
    reason = Kept(unit=unit, sensitivity=12.5, **kept).reason
    assert reason.startswith("12.5 dB when quantized alone; ")
    assert reason.endswith(said)
