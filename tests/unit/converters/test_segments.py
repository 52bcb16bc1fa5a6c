from __future__ import annotations

import numpy as np

from converters.segments import choose_columns


def column(values: int, prefix: str = "v") -> np.ndarray:
    return np.array([f"{prefix}{index:02}" for index in range(values)])


def test_the_columns_of_the_fewest_values_stay_where_a_manifest_cannot_hold_all() -> None:
    columns = {"wide": column(32), **{f"c{index}": column(30) for index in range(8)}, "few": column(2)}
    chosen, left_out = choose_columns(columns)
    assert list(chosen) == [*(f"c{index}" for index in range(8)), "few"]
    assert sum(map(len, chosen.values())) == 242
    assert left_out == ("accuracy by wide: a bundle holds 256 segments, and columns of fewer values have 242",)


def test_what_a_manifest_cannot_call_a_segment_is_left_out_and_said() -> None:
    columns = {
        "many": column(33),
        "long": np.array(["x" * 130]),
        "lines": np.array(["a\nb"]),
        "a": np.array(["b c"]),
        "a b": np.array(["c"]),
        "time": np.array(["day"]),
    }
    chosen, left_out = choose_columns(columns)
    assert list(chosen) == ["a", "time"]
    for said, expected in zip(
        left_out,
        ("many: 33 different values", "long: .* at most 128", "lines: .* control", "a b: .* another column"),
        strict=True,
    ):
        assert expected.split(": ")[0] in said
        assert expected.rpartition(" ")[2] in said
