from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converters.quantize.calibration import RangeCollector


def collected(values: np.ndarray) -> RangeCollector:
    collector = RangeCollector()
    collector.observe("t", values)
    return collector


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=60))
def test_full_coverage_holds_every_value_and_zero(values: list[float]) -> None:
    low, high = collected(np.array(values, np.float32)[:, None]).ranges(1.0)["t"]
    assert low <= min(0.0, *values)
    assert high >= max(0.0, *values)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1.0))
def test_less_coverage_never_widens_a_range(seed: int, coverage: float) -> None:
    collector = collected(np.random.default_rng(seed).normal(size=(50, 4)).astype(np.float32))
    (low, high), (least, most) = collector.ranges(coverage)["t"], collector.ranges(1.0)["t"]
    assert least <= low <= 0 <= high <= most


def test_one_wild_row_in_two_hundred_does_not_stretch_a_range_that_covers_99_percent() -> None:
    values = np.tile(np.linspace(-1, 1, 8, dtype=np.float32), (200, 1))
    values[7] *= 1000
    assert collected(values).ranges(1.0)["t"] == (-1000.0, 1000.0)
    assert collected(values).ranges(0.99)["t"] == (-1.0, 1.0)


def test_chunks_count_as_one_and_rows_that_are_not_finite_not_at_all() -> None:
    collector = RangeCollector()
    collector.observe("t", np.array([[1.0], [-np.inf]], np.float32))
    collector.observe("t", np.array([[np.nan], [-2.0]], np.float32))
    collector.observe("codes", np.array([[1], [2]], np.int8))
    collector.observe("lost", np.array([[np.nan]], np.float32))
    assert collector.ranges(1.0) == {"t": (-2.0, 1.0)}
