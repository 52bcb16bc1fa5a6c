"""Counting: features fall into the stated cells, one at a time or many at once, from any number of threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge_runtime.telemetry.features import MISSING, feature_cells, feature_values
from edge_runtime.telemetry.histograms import PENDING_EXAMPLES, Histograms
from edge_runtime.telemetry.layout import FIXED_HISTOGRAMS, Layout, latency_bin, latency_cell
from tests.support import tiny

LAYOUT = Layout.of(tiny.release().artifact)
EDGES = tuple(float(i) for i in range(17))


@pytest.mark.parametrize(
    ("value", "cell"),
    [(-0.1, 0), (0.0, 1), (0.99, 1), (1.0, 2), (15.5, 16), (16.0, 16), (16.01, 17), (np.nan, 18), (np.inf, 18)],
)
def test_a_value_falls_into_the_stated_cell(value: float, cell: int) -> None:
    assert feature_cells(EDGES, np.array([value])).tolist() == [cell]


def test_features_reduce_over_every_axis_but_the_last() -> None:
    windows = tiny.windows(5)
    values = feature_values(LAYOUT.features, {"window": windows})
    assert values.shape == (5, 6)
    np.testing.assert_allclose(values[:, :3], windows.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(values[:, 3:], windows.std(axis=1), rtol=1e-5)


def test_the_layout_lists_features_first_and_has_one_digest_for_one_meaning() -> None:
    assert [name for name, _ in LAYOUT.histograms[:2]] == ["feature:mean-0", "feature:mean-1"]
    assert LAYOUT.histograms[6:] == FIXED_HISTOGRAMS
    assert LAYOUT.kind == "onnx/fp32"
    same = Layout.of(tiny.release(2, tflite_data=tiny.tflite_bytes()).manifest.artifacts[1])
    assert same.digest == LAYOUT.digest
    assert same.kind == "tflite/fp32"
    other = tiny.release(window=tiny.WINDOW).artifact
    assert other.reference is not None
    moved = Layout.of(_with_edges(other, 0.001))
    assert moved.digest != LAYOUT.digest


def _with_edges(artifact, shift):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    features = artifact.reference.features
    first = replace(features[0], edges=tuple(e + shift for e in features[0].edges))
    return replace(artifact, reference=replace(artifact.reference, features=(first, *features[1:])))


def test_one_at_a_time_and_many_at_once_count_the_same() -> None:
    count = PENDING_EXAMPLES * 2 + 7
    windows = tiny.windows(count)
    windows[0] *= 100
    random = np.random.default_rng(0)
    classes, confidences = random.integers(0, 4, count), random.uniform(0, 1, count)
    one, many = Histograms(LAYOUT), Histograms(LAYOUT)

    for i in range(count):
        one.observe({"window": windows[i : i + 1]}, int(classes[i]), float(confidences[i]), 0)
    many.observe_many(feature_values(LAYOUT.features, {"window": windows}), classes, confidences)
    many.count("reasons", 0, count)

    assert one.counts() == many.counts()
    assert sum(one.counts()["feature:mean-0"]) == count


def test_the_callers_array_may_change_after_the_call() -> None:
    histograms, right = Histograms(LAYOUT), Histograms(LAYOUT)
    window = tiny.windows(1)
    right.observe_many(feature_values(LAYOUT.features, {"window": window}))
    histograms.observe({"window": window}, None, None, 0)
    window[:] = 1000
    assert histograms.counts()["feature:mean-0"] == right.counts()["feature:mean-0"]


def test_classes_beyond_the_cells_count_in_the_last_one() -> None:
    histograms = Histograms(LAYOUT)
    histograms.observe({"window": tiny.windows(1)}, 900, 1.0, 0)
    assert histograms.counts()["classes"][31] == 1
    assert histograms.counts()["confidence"][19] == 1


def test_values_that_are_not_finite_are_missing() -> None:
    histograms = Histograms(LAYOUT)
    histograms.observe_many(np.full((3, 6), np.nan))
    assert histograms.counts()["feature:std-2"][MISSING] == 3


def test_threads_lose_no_count() -> None:
    histograms = Histograms(LAYOUT)
    window = tiny.windows(1)

    def work() -> None:
        for _ in range(500):
            histograms.observe({"window": window}, 1, 0.5, 2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = histograms.counts()
    assert counts["reasons"][2] == counts["classes"][1] == sum(counts["feature:mean-0"]) == 2000


@pytest.mark.parametrize(("us", "bin_"), [(0.0, 0), (1.0, 0), (2.0, 16), (16.0, 64), (1000.0, 159), (1e12, 383)])
def test_latency_bins_are_sixteen_an_octave(us: float, bin_: int) -> None:
    assert latency_bin(us) == bin_


def test_latency_cells_keep_the_ends() -> None:
    assert latency_cell("latency_device", latency_bin(3)) == 0
    assert latency_cell("latency_device", latency_bin(16)) == 0
    assert latency_cell("latency_device", latency_bin(32)) == 16
    assert latency_cell("latency_device", latency_bin(10**7)) == 159
    assert latency_cell("latency_cloud", latency_bin(1024)) == 0
    assert latency_cell("latency_cloud", latency_bin(2048)) == 16
