"""The report's pure parts."""

from __future__ import annotations

import numpy as np

from examples.smartwatch.data import CONTEXT, Windows
from examples.smartwatch.hybrid import Served, curve
from examples.smartwatch.plots import rollout
from examples.smartwatch.wearers import Wearers, turn


def _windows() -> Windows:
    n = 40
    return Windows(
        x=np.random.default_rng(0).standard_normal((n, 100, 6)).astype(np.float32),
        y=np.arange(n) % 7,
        subject=np.repeat([1, 2], n // 2),
        recording=np.repeat([0, 1, 2, 3], n // 4),
    )


def test_context_holds_at_most_eight_windows_and_never_those_of_another_recording() -> None:
    windows = _windows()
    assert len(windows.context(0)) == 1
    assert len(windows.context(9)) == CONTEXT
    assert len(windows.context(11)) == 2
    assert np.array_equal(windows.context(11)[-1], windows.x[11])


def test_the_curve_starts_on_the_device_and_ends_in_the_cloud() -> None:
    device = Served(source=[], right=[True, False, True, False], degraded=[], confidence=[0.9, 0.1, 0.8, 0.2])
    cloud = Served(source=[], right=[False, True, True, True], degraded=[], confidence=[])
    drawn = curve(device, cloud)
    assert (drawn["share"][0], drawn["accuracy"][0]) == (0.0, 0.5)
    assert (drawn["share"][-1], drawn["accuracy"][-1]) == (1.0, 0.75)
    assert max(drawn["accuracy"]) == 1.0  # the two least sure ones sent away


def test_a_wearer_resamples_only_their_own_windows_and_the_same_ones_every_run() -> None:
    windows = _windows()
    wearers = Wearers.make(windows, devices=10, wrong_share=0.8, seed=1)
    assert wearers.strapped_wrong.sum() == 8
    rows = wearers.rows(3, 5, seed=1)
    assert set(windows.subject[rows]) == {wearers.subject[3]}
    assert np.array_equal(rows, wearers.rows(3, 5, seed=1))
    assert not np.array_equal(rows, wearers.rows(3, 6, seed=1))


def test_turning_the_watch_flips_one_axis() -> None:
    windows = _windows()
    turned = turn(windows, 2)
    assert np.array_equal(turned.x[:, :, 2], -windows.x[:, :, 2])
    assert np.array_equal(turned.x[:, :, [0, 1, 3, 4, 5]], windows.x[:, :, [0, 1, 3, 4, 5]])


def test_the_rollout_plot_shows_the_devices_it_is_given() -> None:
    flat = rollout([{"seconds": s, "releases": {1: 0}} for s in range(3)], [])
    grown = rollout([{"seconds": s, "releases": {1: 20 * s}} for s in range(3)], [])
    assert flat.startswith("<svg")
    assert flat != grown
