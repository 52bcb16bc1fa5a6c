from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from converters.foreign.names import coreml_names


def test_names_that_core_ml_accepts_stay() -> None:
    assert coreml_names(["window", "_x1", "Logits_2"]) == {"window": "window", "_x1": "_x1", "Logits_2": "Logits_2"}


def test_other_characters_become_underscores_and_a_first_digit_gets_one() -> None:
    assert coreml_names(["StatefulPartitionedCall:2", "7"]) == {
        "StatefulPartitionedCall:2": "StatefulPartitionedCall_2",
        "7": "_7",
    }


def test_two_names_never_become_one_and_a_fine_one_keeps_its_own() -> None:
    assert coreml_names(["a.b", "a/b", "a_b"]) == {"a.b": "a_b_2", "a/b": "a_b_3", "a_b": "a_b"}


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=8))
def test_every_mapping_is_one_to_one_and_accepted(names: list[str]) -> None:
    mapped = coreml_names(names)
    assert list(mapped) == names
    assert len(set(mapped.values())) == len(names)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in mapped.values())
