from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_server.telemetry.privacy import composed_epsilon, discrete_gaussian, noise_variance, zcdp_budget


def test_the_budget_for_epsilon_one_and_delta_a_millionth_is_the_known_one() -> None:
    # Bun and Steinke's simpler bound gives .0175; the tight conversion may spend more.
    rho = zcdp_budget(1.0, 1e-6)
    assert rho == pytest.approx(0.02436, rel=1e-3)
    assert rho > (math.sqrt(1 + math.log(1e6)) - math.sqrt(math.log(1e6))) ** 2


@settings(deadline=None, max_examples=40)
@given(epsilon=st.floats(0.05, 10), delta=st.floats(1e-12, 0.1))
def test_the_budget_is_the_largest_that_keeps_every_renyi_order_within_delta(epsilon: float, delta: float) -> None:
    def smallest_delta(rho: float) -> float:
        orders = [1 + 10 ** (k / 200) for k in range(-1200, 1400)]
        return min(
            math.exp((a - 1) * (a * rho - epsilon) - math.log(a - 1) + a * math.log1p(-1 / a))
            for a in orders
            if (a - 1) * (a * rho - epsilon) < 700
        )

    rho = zcdp_budget(epsilon, delta)
    assert smallest_delta(rho) <= delta * 1.001
    assert smallest_delta(rho * 1.01) > delta


def test_one_release_composes_to_what_it_was_made_for_and_a_year_to_less_than_the_sum() -> None:
    rho = zcdp_budget(1.0, 1e-6)
    assert composed_epsilon(rho, 1, 1e-6) == pytest.approx(1.0, rel=1e-6)
    assert 20 < composed_epsilon(rho, 365, 1e-6) < 40


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0, 1e-6), (-1, 1e-6), (1, 0), (1, 1), (math.nan, 0.1), (math.inf, 0.1)]
)
def test_a_promise_that_is_none_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="no privacy"):
        zcdp_budget(epsilon, delta)


def test_noise_grows_with_the_square_of_the_sensitivity_and_is_never_rounded_down() -> None:
    one = noise_variance(1, 1.0, 1e-6)
    assert one == math.ceil(1 / (2 * zcdp_budget(1.0, 1e-6)))
    assert noise_variance(10_000, 1.0, 1e-6) == pytest.approx(10_000 / (2 * zcdp_budget(1.0, 1e-6)), abs=1)
    with pytest.raises(ValueError, match="mistake"):
        noise_variance(0, 1.0, 1e-6)


@pytest.mark.parametrize("variance", [1, 4, 30])
def test_draws_follow_the_discrete_gaussian(variance: int) -> None:
    count = 40_000
    draws = discrete_gaussian(variance, count, random.Random(7))
    weights = {x: math.exp(-x * x / (2 * variance)) for x in range(-60, 61)}
    total = sum(weights.values())
    statistic, cells = 0.0, 0
    for x, weight in weights.items():
        expected = count * weight / total
        if expected >= 10:
            statistic += (draws.count(x) - expected) ** 2 / expected
            cells += 1
    assert statistic < cells + 4 * math.sqrt(2 * cells)


def test_large_noise_has_the_variance_that_was_asked_for() -> None:
    variance = 5_000**2
    draws = discrete_gaussian(variance, 20_000, random.Random(3))
    assert sum(x * x for x in draws) / len(draws) == pytest.approx(variance, rel=0.05)
    assert abs(sum(draws) / len(draws)) < 4 * 5_000 / math.sqrt(len(draws))


def test_the_same_seed_draws_the_same_noise_and_the_system_source_works() -> None:
    assert discrete_gaussian(100, 50, random.Random(1)) == discrete_gaussian(100, 50, random.Random(1))
    assert discrete_gaussian(100, 50, random.SystemRandom()) != discrete_gaussian(100, 50, random.SystemRandom())


def test_a_day_of_twenty_thousand_cells_is_drawn_in_well_under_a_second() -> None:
    import time

    start = time.process_time()
    discrete_gaussian(24_000**2, 20_000, random.Random(1))
    assert time.process_time() - start < 0.5
