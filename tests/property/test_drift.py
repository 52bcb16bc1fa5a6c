"""Drift on fleets whose devices differ: false alarms, time to alarm, and what the evidence promises."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_server.telemetry.aggregates import Mechanism
from model_server.telemetry.drift import (
    BETS,
    Baseline,
    Day,
    DayEvidence,
    DriftSettings,
    Watch,
    detectable,
    freeze,
    weigh,
)
from model_server.telemetry.pooling import Monitored, days_of, monitored
from model_server.telemetry.privacy import discrete_gaussian, noise_variance
from tests.support.watch_fleet import WatchFleet, layout, manifest

SETTINGS = DriftSettings()
BASELINE_DAYS = 14


@cache
def wanted() -> tuple[Monitored, ...]:
    return monitored(manifest(), manifest().artifacts[0])


@cache
def names() -> tuple[str, ...]:
    return tuple(one.name for one in wanted())


class Server:
    """What the server does to a day of reports, without HTTP and tables."""

    def __init__(self, seed: int) -> None:
        self._mechanism = Mechanism(layout(), has_labels=True)
        self._noise = random.Random(seed)
        self._variance = self._mechanism.variance(1.0, 1e-6)

    def release(self, rows: NDArray[np.uint8]) -> dict[str, Day]:
        found = self._mechanism.contributions(rows)
        assert found.valid.all()
        draws = discrete_gaussian(self._variance, self._mechanism.dimension, self._noise)
        noised = found.vectors.sum(axis=0) + np.array(draws, np.int64)
        return days_of(self._mechanism.read(noised, self._variance), wanted())


@dataclass(frozen=True)
class Outcome:
    alarm_day: int | None  # 1 = the first day after the baseline
    named: tuple[str, ...]
    highest: float  # log10 of the process


def live(
    fleet: WatchFleet, seed: int, *, days: int, share: float = 0.0, axis: str = "az", until_alarm: bool = False
) -> Outcome:
    """Fourteen days of baseline, then ``days`` days in which ``share`` of the watches are turned."""
    server = Server(seed)
    past = [server.release(fleet.day()) for _ in range(BASELINE_DAYS)]
    frozen = {name: freeze([day[name] for day in past], SETTINGS) for name in names()}
    watch, highest = Watch(names(), SETTINGS), -math.inf
    turned = fleet.choose(share) if share else None
    for number in range(1, days + 1):
        day = server.release(fleet.day(turned, axis))
        watch.step({name: weigh(day[name], frozen[name], SETTINGS) for name in names()})
        highest = max(highest, watch.total())
        if watch.alarm():
            return Outcome(number, watch.named(), highest)
    return Outcome(None, (), highest)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fleet_of_devices_that_differ_raises_no_alarm_in_sixty_days(seed: int) -> None:
    outcome = live(WatchFleet(2000, seed), seed, days=60)
    assert outcome.alarm_day is None
    assert outcome.highest < 1.0


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_a_turned_watch_is_found_within_two_weeks_and_its_axis_is_named(share: float) -> None:
    outcome = live(WatchFleet(2000, 3), 3, days=14, share=share)
    assert outcome.alarm_day is not None
    assert "az" in outcome.named
    assert set(outcome.named) <= {"az", "classes", "confidence"}


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", [{}, {"windows": 5}, {"taking_part": 0.6}], ids=["whole days", "five windows", "60 % report"]
)
def test_healthy_fleets_stay_silent_for_ninety_days_in_every_seed(kind: dict[str, float]) -> None:
    outcomes = [live(WatchFleet(2000, seed, **kind), seed, days=90) for seed in range(100, 120)]  # type: ignore[arg-type]
    assert [outcome.alarm_day for outcome in outcomes] == [None] * 20


@pytest.mark.long
@pytest.mark.parametrize(("share", "within"), [(0.8, 1), (0.5, 1), (0.3, 2)])
def test_a_turned_watch_is_found_in_every_seed(share: float, within: int) -> None:
    for seed in range(200, 220):
        outcome = live(WatchFleet(2000, seed), seed, days=30, share=share)
        assert outcome.alarm_day is not None, seed
        assert outcome.alarm_day <= within, seed
        assert "az" in outcome.named, seed


@settings(max_examples=20, deadline=None)
@given(
    devices=st.sampled_from([500, 2_000, 20_000, 1_000_000]),
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([0.3, 1.0, 10.0]),
)
def test_the_mean_e_value_is_at_most_one_when_drift_is_exactly_the_tolerance(
    devices: int, seed: int, shape: float
) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(19, shape))
    p = 0.9 * p + 0.1 / 19
    direction = rng.normal(size=19)
    direction -= direction.mean()
    size = np.sum(direction**2 / np.maximum(p, SETTINGS.floor))
    q = p + direction * math.sqrt(SETTINGS.tolerance / size)
    q = np.maximum(q, 0.0)  # can only shorten the way
    q /= q.sum()
    baseline = Baseline(shares=p, tolerance=SETTINGS.tolerance, privacy_error=0.0)
    if np.sum((q - p) ** 2 / np.maximum(p, SETTINGS.floor)) > SETTINGS.tolerance * 1.0001:
        q = p
    deviation = 5.7
    draws = 300
    values = np.empty((draws, len(BETS)))
    for i in range(draws):
        # Every device is of a single kind: the most that devices can differ.
        day = Day(
            sums=rng.multinomial(devices, q) + rng.normal(0, deviation, 19),
            weight=devices + rng.normal(0, 2 * deviation),
            cell_variance=deviation**2,
            weight_variance=4 * deviation**2,
        )
        values[i] = np.exp(weigh(day, baseline, SETTINGS).log_e)
    means, errors = values.mean(axis=0), values.std(axis=0) / math.sqrt(draws)
    assert (means <= 1 + 4 * errors).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([0.5, 1.0, 2.0]))
def test_false_alarms_keep_to_their_budget_for_any_e_values_of_mean_one(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    threshold, horizon, runs = 200.0, 20, 400
    limits = DriftSettings(threshold=threshold)
    alarms = 0
    for _ in range(runs):
        watch = Watch(("a", "b"), limits)
        for _ in range(horizon):
            watch.step({name: _evidence(rng.normal(-(spread**2) / 2, spread, len(BETS))) for name in "ab"})
            if watch.alarm():
                alarms += 1
                break
    assert alarms / runs <= horizon / threshold + 3 * math.sqrt(0.1 * 0.9 / runs)


def _evidence(log_e: NDArray[np.float64]) -> DayEvidence:
    return DayEvidence(effect=0.0, deviation=0.0, log_e=log_e)


@settings(max_examples=25, deadline=None)
@given(devices=st.integers(500, 200_000), seed=st.integers(0, 2**32), drift=st.sampled_from([0.0, 0.05, 0.5]))
def test_the_effect_size_is_not_biased_upwards(devices: int, seed: int, drift: float) -> None:
    rng = np.random.default_rng(seed)
    p = np.full(16, 1 / 16)
    q = p * (1 + math.sqrt(drift) * np.where(np.arange(16) % 2, 1, -1))
    baseline = Baseline(shares=p, tolerance=SETTINGS.tolerance, privacy_error=0.0)
    seen = [
        weigh(
            Day(
                sums=rng.multinomial(devices, q) + rng.normal(0, 5.7, 16),
                weight=devices + rng.normal(0, 11.4),
                cell_variance=5.7**2,
                weight_variance=11.4**2,
            ),
            baseline,
            SETTINGS,
        ).effect
        for _ in range(200)
    ]
    error = float(np.std(seen)) / math.sqrt(len(seen))
    assert abs(np.mean(seen) - drift) <= 5 * error + 0.01 * drift


def test_a_group_jackknife_under_the_same_privacy_is_mostly_noise() -> None:
    """Why the covariance of devices is bounded and not estimated: each of 20 group sums needs noise of its own."""
    rng = np.random.default_rng(0)
    devices, groups = 2_000, 20
    variance = noise_variance(4096**2 * 25 // 16, 1.0, 1e-6) / 4096**2
    p = np.full(16, 1 / 16)
    baseline = Baseline(shares=p, tolerance=SETTINGS.tolerance, privacy_error=0.0)
    jackknife, bounded = [], []
    for _ in range(400):
        sums = rng.multinomial(devices, p)
        by_group = rng.multinomial(devices // groups, p, size=groups) + rng.normal(0, math.sqrt(variance), (groups, 16))
        share = by_group.sum(axis=0) / devices
        left_out = (by_group.sum(axis=0) - by_group) / (devices * (groups - 1) / groups)
        estimate = (groups - 1) / groups * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
        jackknife.append(float(np.sum(((share - p) ** 2 - estimate) / p)))
        day = Day(
            sums=sums + rng.normal(0, math.sqrt(variance), 16),
            weight=float(devices),
            cell_variance=variance,
            weight_variance=0.0,
        )
        bounded.append(weigh(day, baseline, SETTINGS).effect)
    assert abs(np.mean(jackknife)) < 0.02  # unbiased as well,
    assert np.std(jackknife) > 4 * np.std(bounded)  # and far less certain: .018 against .0033


def test_approved_days_that_differ_among_themselves_widen_the_tolerance_and_weekends_raise_no_alarm() -> None:
    rng = np.random.default_rng(5)
    weekday, weekend = np.full(16, 1 / 16), np.full(16, 1 / 16) * (1 + 0.45 * np.where(np.arange(16) % 2, 1, -1))

    def day(number: int) -> Day:
        q = weekend if number % 7 in (5, 6) else weekday
        return Day(
            sums=rng.multinomial(20_000, q) + rng.normal(0, 5.7, 16),
            weight=20_000 + rng.normal(0, 11.4),
            cell_variance=5.7**2,
            weight_variance=11.4**2,
        )

    frozen = freeze([day(i) for i in range(14)], SETTINGS)
    assert frozen.tolerance > 3 * frozen.asked(SETTINGS)
    watch = Watch(("steps",), SETTINGS)
    for number in range(14, 104):
        watch.step({"steps": weigh(day(number), frozen, SETTINGS)})
        assert not watch.alarm()


def test_what_is_said_to_be_detectable_is_found_in_that_time_and_half_of_it_is_not() -> None:
    rng = np.random.default_rng(7)
    p, signs = np.full(16, 1 / 16), np.where(np.arange(16) % 2, 1, -1)

    def day(drift: float) -> Day:
        q = p * (1 + math.sqrt(drift) * signs)
        return Day(
            sums=2_000 * q + rng.normal(0, 5.7, 16),
            weight=2_000 + rng.normal(0, 11.4),
            cell_variance=5.7**2,
            weight_variance=11.4**2,
        )

    frozen = freeze([day(0.0) for _ in range(14)], SETTINGS)
    limit = detectable(day(0.0), frozen, SETTINGS, histograms=1, days=14)
    assert 0.02 < limit < 0.08
    found = dict.fromkeys((limit * 1.1, limit / 2), 0)
    for drift in found:
        for _ in range(20):
            watch = Watch(("a",), SETTINGS)
            for _ in range(14):
                watch.step({"a": weigh(day(drift), frozen, SETTINGS)})
            found[drift] += watch.alarm()
    assert list(found.values()) == [20, 0]


def test_a_day_without_reports_changes_nothing() -> None:
    watch = Watch(("a", "b"), SETTINGS)
    watch.step({name: _evidence(np.full(len(BETS), 2.0)) for name in ("a", "b")})
    before = watch.total()
    watch.step({})
    assert watch.total() == before


def test_an_alarm_names_the_histogram_that_drifts_and_no_other() -> None:
    watch = Watch(("a", "b"), SETTINGS)
    for _ in range(10):
        watch.step({"a": _evidence(np.full(len(BETS), 3.0)), "b": _evidence(np.full(len(BETS), -3.0))})
    assert watch.alarm()
    assert watch.named() == ("a",)
