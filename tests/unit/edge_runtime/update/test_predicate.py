"""Predicates: which devices a plan is meant for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.update.predicate import evaluate

DEVICE: dict[str, str | int | float | bool] = {
    "arch": "arm64",
    "ram_bytes": 2_000_000_000,
    "load": 0.5,
    "beta": True,
    "one": 1,
}


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (None, True),
        ({"eq": ["arch", "arm64"]}, True),
        ({"eq": ["arch", "x86_64"]}, False),
        ({"eq": ["beta", True]}, True),
        ({"eq": ["one", True]}, False),
        ({"eq": ["one", 1.0]}, True),
        ({"eq": ["beta", 1]}, False),
        ({"not": {"eq": ["arch", "x86_64"]}}, True),
        ({"in": ["arch", ["x86_64", "arm64"]]}, True),
        ({"in": ["arch", []]}, False),
        ({"lt": ["load", 1]}, True),
        ({"lt": ["load", 0.5]}, False),
        ({"ge": ["ram_bytes", 2_000_000_000]}, True),
        ({"all": []}, True),
        ({"any": []}, False),
        ({"all": [{"eq": ["beta", True]}, {"lt": ["load", 1]}]}, True),
        ({"any": [{"eq": ["beta", False]}, {"lt": ["load", 1]}]}, True),
    ],
)
def test_operators_mean_what_the_plan_says(predicate: Any, expected: bool) -> None:
    assert evaluate(predicate, DEVICE) is expected


@pytest.mark.parametrize(
    "unknown",
    [
        {"matches": ["arch", ".*"]},
        {"eq": ["colour", "green"]},
        {"lt": ["arch", 3]},
        {"lt": ["load", "1"]},
        {"ge": ["beta", 0]},
        {"eq": ["arch"]},
        {"eq": ["arch", ["arm64"]]},
        {"eq": ["arch", None]},
        {"in": ["arch", "arm64"]},
        {"all": {}},
        {"not": None},
        {"eq": ["arch", "arm64"], "lt": ["load", 1]},
        {},
    ],
)
def test_anything_unknown_means_not_me_also_under_not(unknown: dict[str, Any]) -> None:
    assert evaluate(unknown, DEVICE) is False
    assert evaluate({"not": unknown}, DEVICE) is False
    assert evaluate({"any": [unknown, {"eq": ["beta", True]}]}, DEVICE) is False


def test_any_stops_at_the_first_element_that_decides() -> None:
    assert evaluate({"any": [{"eq": ["beta", True]}, {"unknown": []}]}, DEVICE) is True
    assert evaluate({"all": [{"eq": ["beta", False]}, {"unknown": []}]}, DEVICE) is False


def test_nesting_is_bounded() -> None:
    predicate: dict[str, Any] = {"eq": ["beta", True]}
    for _ in range(6):
        predicate = {"all": [predicate]}
    assert evaluate(predicate, DEVICE) is True
    for _ in range(2):
        predicate = {"all": [predicate]}
    assert evaluate(predicate, DEVICE) is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["all", "not", "eq", "x"]), inner),
)


@given(st.dictionaries(st.sampled_from(["all", "any", "not", "eq", "in", "lt", "ge", "x"]), json_values, max_size=2))
def test_no_predicate_raises(predicate: dict[str, Any]) -> None:
    assert evaluate(predicate, DEVICE) in (True, False)
