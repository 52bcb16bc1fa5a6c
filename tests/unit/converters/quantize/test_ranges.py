from __future__ import annotations

import numpy as np
import pytest
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


def test_least_squares_cuts_off_a_lone_value_that_would_coarsen_all_others() -> None:
    values = np.random.default_rng(0).normal(size=(400, 200)).astype(np.float32)
    values[7, 3] = 1000
    low, high = collected(values).least_squares()["t"]
    assert high < 500
    assert low == pytest.approx(values.min(), rel=0.5)


def test_least_squares_keeps_a_channel_that_alone_is_large() -> None:
    """Each row is sampled at other places: with the same ones a channel could be missed in all rows."""
    values = np.random.default_rng(0).uniform(0, 1, (64, 4096)).astype(np.float32)
    values[:, 1234] = 40
    low, high = collected(values).least_squares()["t"]
    assert (low, high) == (0.0, pytest.approx(40, rel=0.35))


@given(st.integers(0, 2**32 - 1))
def test_least_squares_never_widens_a_range_and_keeps_zero(seed: int) -> None:
    collector = collected(np.random.default_rng(seed).standard_t(3, size=(20, 30)).astype(np.float32))
    (low, high), (least, most) = collector.ranges(1.0)["t"], collector.least_squares()["t"]
    assert low <= least <= 0 <= most <= high
