"""Counters add up from any number of threads, and percentiles come from the bins."""

from __future__ import annotations

import threading

import pytest

from edge_runtime.prediction import Source
from edge_runtime.stats import Counters, percentile_us
from edge_runtime.telemetry.layout import LATENCY_BINS, latency_bin


def test_threads_lose_no_count() -> None:
    counters = Counters()

    def work() -> None:
        for i in range(2000):
            counters.answered(Source.DEVICE, 0, 100, None, False)
            if i % 10 == 0:
                counters.refuse()
                counters.fail(failed=True)
                counters.answered(Source.CLOUD, 2, None, 200, True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = counters.totals()
    assert totals.requests == 4 * (2000 + 3 * 200)
    assert (totals.refused, totals.unanswered, totals.errors, totals.fallbacks) == (800, 800, 1600, 800)
    assert totals.sources["device"] == totals.latency_device[100] == counters.good == 8000
    assert totals.sources["cloud"] == totals.latency_cloud[200] == totals.reasons["Deferred"] == 800


def test_good_runs_are_numbered_and_others_are_not() -> None:
    counters = Counters()
    assert counters.answered(Source.DEVICE, 0, 10, None, False) == 1
    assert counters.answered(Source.DEFAULT, 7, None, None, True) == 0
    assert counters.answered(Source.CLOUD, 2, 10, 10, False) == 2


@pytest.mark.parametrize("us", [3.0, 50.0, 1234.0, 90_000.0])
def test_a_percentile_is_at_most_a_bin_too_high(us: float) -> None:
    bins = [0] * LATENCY_BINS
    bins[latency_bin(us)] = 10
    found = percentile_us(bins, 0.5)
    assert found is not None
    assert us <= found <= us * 2 ** (1 / 16) * 1.0001
    assert percentile_us(bins, 0.99) == found


def test_without_counts_there_is_no_percentile() -> None:
    assert percentile_us([0] * LATENCY_BINS, 0.5) is None


def test_percentiles_order() -> None:
    bins = [0] * LATENCY_BINS
    for us in range(10, 1010, 10):
        bins[latency_bin(us)] += 1
    median, high = percentile_us(bins, 0.5), percentile_us(bins, 0.95)
    assert median is not None
    assert high is not None
    assert 480 < median < 560
    assert 930 < high < 1050
