from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from converters import CoreMLReference
from converters.coreml_reference import CHUNK
from converters.targets.coreml import pack_program
from tests.unit.converters.mil.programs import build

ROWS = np.random.default_rng(3).normal(size=(2 * CHUNK + 7, 1, 2, 8, 8)).astype(np.float32)
WEIGHT = np.random.default_rng(4).normal(size=(3, 2, 3, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def package() -> bytes:
    return pack_program(build(lambda mb, x: mb.relu(x=mb.conv(x=x, weight=WEIGHT)), (1, 2, 8, 8)))


@pytest.fixture
def half_for_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")


@pytest.mark.usefixtures("half_for_blas")
def test_chunks_beside_each_other_give_the_very_numbers_of_chunks_one_by_one(
    package: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=30)
    given = CoreMLReference._run_chunk

    def meeting(self: CoreMLReference, inputs: Mapping[str, np.ndarray], observe: None) -> dict[str, np.ndarray]:
        if len(inputs["x"]) == CHUNK:  # the two whole chunks wait for each other
            both.wait()
        return given(self, inputs, observe)

    reference = CoreMLReference(package)
    alone = reference.run({"x": ROWS}, observe=lambda name, value: None)
    monkeypatch.setattr(CoreMLReference, "_run_chunk", meeting)
    together = reference.run({"x": ROWS})
    assert not both.broken
    for name, value in alone.items():
        assert len(value) == len(ROWS)
        np.testing.assert_array_equal(together[name], value)


def test_where_blas_has_every_processor_chunks_go_one_by_one(package: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    names = set()
    given = CoreMLReference._run_chunk

    def noting(self: CoreMLReference, inputs: Mapping[str, np.ndarray], observe: None) -> dict[str, np.ndarray]:
        names.add(threading.current_thread().name)
        return given(self, inputs, observe)

    monkeypatch.setattr(CoreMLReference, "_run_chunk", noting)
    CoreMLReference(package).run({"x": ROWS})
    assert len(names) == 1


@pytest.mark.usefixtures("half_for_blas")
def test_rows_that_go_different_ways_are_found_there_too() -> None:
    x = np.random.default_rng(5).normal(size=(2 * CHUNK + 7, 1, 4)).astype(np.float32)

    def branching(mb: Any, x: Any) -> Any:
        return mb.cond(
            pred=mb.greater(x=mb.reduce_sum(x=x, axes=[0, 1], keep_dims=False), y=0.0),
            _true_fn=lambda: mb.mul(x=x, y=2.0),
            _false_fn=lambda: mb.sub(x=x, y=1.0),
        )

    (value,) = CoreMLReference(pack_program(build(branching, (1, 4)))).run({"x": x}).values()
    np.testing.assert_array_equal(value, np.where(x.sum(axis=(1, 2), keepdims=True) > 0, 2 * x, x - 1))
