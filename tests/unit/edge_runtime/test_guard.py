"""The guard's score: a Mahalanobis distance of summaries that do not depend on how a tensor lies in memory."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.bundle import Guard, GuardPart, TensorSpec
from edge_runtime.guard import GuardScorer, distances, summaries
from tests.support import bundles

EVERYTHING = ("mean", "log_std", "min", "max", "roughness")
RNG = np.random.default_rng(0)


def test_with_all_directions_but_one_it_is_the_mahalanobis_distance() -> None:
    z = RNG.normal(size=(50, 6)) @ RNG.normal(size=(6, 6))
    covariance = z.T @ z / len(z)
    variances, vectors = np.linalg.eigh(covariance)
    ours = distances(z, vectors.T[1:], 1 / variances[1:], 1 / variances[0])
    exact = np.sqrt(np.einsum("ri,ij,rj->r", z, np.linalg.inv(covariance), z) / 6)
    np.testing.assert_allclose(ours, exact, rtol=1e-9)


def test_without_directions_it_is_the_root_mean_square() -> None:
    z = RNG.normal(size=(5, 4))
    np.testing.assert_allclose(distances(z, np.zeros((0, 4)), np.zeros(0), 4.0), 2 * np.sqrt((z**2).mean(axis=1)))


def test_channels_first_and_channels_last_have_the_same_summaries() -> None:
    image = RNG.normal(size=(3, 8, 10, 4)).astype(np.float32)
    last = summaries((GuardPart(input="x", reduce=EVERYTHING, axis=2, stride=3),), {"x": image})
    first = summaries((GuardPart(input="x", reduce=EVERYTHING, axis=0, stride=3),), {"x": image.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(last, first, rtol=1e-12)
    assert last.shape == (3, 20)


def test_summaries_are_what_their_names_say() -> None:
    x = RNG.normal(size=(2, 30, 3))
    found = summaries((GuardPart(input="x", reduce=EVERYTHING, axis=1),), {"x": x})
    expected = [x.mean(1), np.log(x.std(1)), x.min(1), x.max(1), np.sqrt((np.diff(x, axis=1) ** 2).mean(1))]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-12)


def test_a_constant_channel_has_the_least_spread_and_no_roughness() -> None:
    found = summaries((GuardPart(input="x", reduce=("log_std", "roughness")),), {"x": np.full((1, 9), 7, np.int8)})
    assert found.tolist() == [[math.log(1e-12), 0.0]]


def test_one_example_scores_as_it_does_among_others() -> None:
    scorer = GuardScorer(bundles.guard(), (bundles.WINDOW,))
    windows = RNG.normal(size=(7, 100, 6)).astype(np.float32)
    alone = [scorer.score({"window": window[np.newaxis]}) for window in windows]
    np.testing.assert_allclose(scorer.scores({"window": windows}), alone, rtol=1e-12)


def test_an_input_without_a_batch_axis_is_one_example() -> None:
    guard = replace(bundles.guard(), parts=(GuardPart(input="x", reduce=("mean", "log_std", "roughness"), stride=2),))
    x = RNG.normal(size=(50, 6))
    plain = GuardScorer(guard, (TensorSpec(name="x", dtype="float32", shape=("rows", 6)),)).score({"x": x})
    batched = GuardScorer(guard, (TensorSpec(name="x", dtype="float32", shape=("batch", 50, 6)),)).score({"x": x[None]})
    assert plain == pytest.approx(batched)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_element_that_counts_and_is_not_finite_makes_the_score_infinite(value: float) -> None:
    scorer = GuardScorer(bundles.guard(), (bundles.WINDOW,))
    window = RNG.normal(size=(1, 100, 6)).astype(np.float32)
    window[0, 2, 4] = value  # an element that the stride of 2 keeps
    assert scorer.score({"window": window}) == math.inf


def test_values_beyond_any_use_do_not_warn_and_are_outside() -> None:
    guard: Guard = replace(bundles.guard(), scale=(5e-324, 1.0, 1.0))
    scorer = GuardScorer(guard, (bundles.WINDOW,))
    assert scorer.score({"window": np.full((1, 100, 6), np.finfo(np.float32).max)}) == math.inf
