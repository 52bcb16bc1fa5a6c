"""The search for raw samples finds them in every form that an upload could carry them in."""

from __future__ import annotations

import json

import numpy as np
import pytest

from examples.smartwatch.wire import SampleFinder

WINDOWS = np.random.default_rng(3).standard_normal((4, 100, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def finder() -> SampleFinder:
    return SampleFinder(WINDOWS)


@pytest.mark.parametrize(
    "body",
    [
        b"header" + WINDOWS[2].tobytes() + b"trailer",
        b"x" + WINDOWS[1, 50, 1:3].tobytes(),
        WINDOWS[3, 7].astype(">f4").tobytes(),
        json.dumps({"value": float(WINDOWS[0, 3, 2])}).encode(),
    ],
    ids=["a whole window", "two neighbours at an odd offset", "big-endian", "decimal text"],
)
def test_a_body_with_raw_samples_is_found(finder: SampleFinder, body: bytes) -> None:
    assert finder.found_in([body]) == 1


def test_counts_and_noise_are_not_taken_for_samples(finder: SampleFinder) -> None:
    noise = np.random.default_rng(5)
    bodies = [noise.bytes(600) for _ in range(200)]
    assert finder.found_in([*bodies, b"", b"short", b'{"requests": 12, "share": 0.125}']) == 0
