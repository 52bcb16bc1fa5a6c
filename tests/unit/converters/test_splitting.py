from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters import Dataset
from converters.splitting import split_rows

SHARES = (0.5, 0.25, 0.25)


def rows(count: int, **known: np.ndarray) -> Dataset:
    return Dataset(name="c", inputs={"x": np.zeros((count, 1))}, **known)  # type: ignore[arg-type]


@given(st.integers(3, 200), st.integers(1, 12), st.integers(0, 5), st.booleans())
def test_parts_are_disjoint_whole_ascending_and_never_empty(count: int, kinds: int, seed: int, grouped: bool) -> None:
    values = np.random.default_rng(seed).integers(0, kinds, count)
    parts = split_rows(rows(count, **({"groups": values} if grouped else {"labels": values})), SHARES, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert all(len(part) and (np.diff(part) > 0).all() for part in parts)


@given(st.integers(3, 30), st.integers(0, 5))
def test_no_group_is_in_two_parts(groups: int, seed: int) -> None:
    group = np.repeat(np.arange(groups), np.random.default_rng(seed).integers(1, 20, groups))
    parts = split_rows(rows(len(group), groups=group), SHARES, seed)
    seen = [set(group[part].tolist()) for part in parts]
    assert len(set().union(*seen)) == sum(len(each) for each in seen)
    assert all(seen)


def test_every_class_has_the_same_proportion_in_every_part() -> None:
    labels = np.repeat([0, 1, 2], [400, 40, 200])
    for part, share in zip(split_rows(rows(640, labels=labels), SHARES), SHARES, strict=True):
        assert np.bincount(labels[part]) == pytest.approx(np.array([400, 40, 200]) * share, abs=1)


def test_the_seed_decides() -> None:
    data = rows(100)
    first, again, other = (split_rows(data, SHARES, seed)[0] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
