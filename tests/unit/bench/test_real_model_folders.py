from __future__ import annotations

import numpy as np
import pytest

from bench.real_models.folder import save_split
from converters.data import load_dataset


def test_a_split_is_what_the_converters_read(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    entry = save_split(tmp_path, "evaluation", "three rows", {"x": x}, label=np.array([0, 1, 0]), group=None)
    data = load_dataset(tmp_path / "evaluation.npz")
    assert (data.inputs["x"] == x).all()
    assert data.groups is None
    assert entry["evaluation"].rows == 3
    assert entry["evaluation"].labelled


def test_a_split_of_arrays_that_do_not_belong_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match="different lengths"):
        save_split(tmp_path, "evaluation", "", {"x": np.zeros((3, 2))}, label=np.zeros(2, int))
