from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.telemetry.histograms import Histograms
from edge_runtime.telemetry.layout import CLASSES, CONFIDENCE, LATENCY_DEVICE, Layout
from edge_runtime.telemetry.wire import PrivacyMode, ReportArm, ReportHeader, decode_header, encode_report
from model_server.telemetry.aggregates import SCALE, Mechanism
from tests.support import bundles

LAYOUT = Layout.of(bundles.artifact())
MECHANISM = Mechanism(LAYOUT, has_labels=True)
FEATURE = "feature:gyro-z mean"


def row(counts: dict[str, dict[int, int]]) -> np.ndarray:
    """A report's histograms as a device would write them; ``counts`` are cells by histogram."""
    histograms = Histograms(LAYOUT)
    for name, cells in counts.items():
        for cell, times in cells.items():
            histograms.count(name, cell, times)
    header = ReportHeader(
        mode=PrivacyMode.CENTRAL,
        arm=ReportArm.NONE,
        release=1,
        day=1,
        daily_id=bytes(16),
        model="m",
        kind=LAYOUT.kind,
    )
    data = encode_report(header, histograms)
    return np.frombuffer(data[decode_header(data)[2] :], np.uint8).reshape(1, -1)


TYPICAL = {FEATURE: {3: 50, 4: 50}, CLASSES: {0: 70, 1: 30}, CONFIDENCE: {19: 100}}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_bytes_whatever_contribute_more_than_the_sensitivity(data: st.DataObject) -> None:
    size = MECHANISM.report_bytes
    kind = data.draw(st.sampled_from(["any", "sparse", "spikes"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = rng.integers(0, 256, (8, size), dtype=np.uint8)
    if kind == "sparse":
        rows[rng.random(rows.shape) < 0.95] = 0
    if kind == "spikes":
        rows[:] = 0
        rows[:, rng.integers(0, size, 6)] = 255
    found = MECHANISM.contributions(rows)
    assert ((found.vectors**2).sum(axis=1) <= MECHANISM.sensitivity_squared).all()


def test_a_quiet_and_a_busy_device_with_the_same_shares_contribute_the_same() -> None:
    busy = {name: {cell: times * 40 for cell, times in cells.items()} for name, cells in TYPICAL.items()}
    quiet_vector = MECHANISM.contributions(row(TYPICAL)).vectors
    busy_vector = MECHANISM.contributions(row(busy)).vectors
    assert np.abs(quiet_vector - busy_vector).max() <= SCALE * 0.005  # the wire form rounds


def test_a_sum_read_back_gives_the_shares_and_the_number_of_devices() -> None:
    total = MECHANISM.contributions(np.concatenate([row(TYPICAL)] * 10)).vectors.sum(axis=0)
    cohort = MECHANISM.read(total, variance=SCALE**2)
    assert cohort.devices == pytest.approx(10)
    assert cohort.histograms[FEATURE][[3, 4]] / cohort.weight == pytest.approx([0.5, 0.5], rel=1e-3)
    assert cohort.histograms[CLASSES][:2] / cohort.weight == pytest.approx([0.7, 0.3], rel=1e-3)
    assert cohort.cell_variances[CLASSES] == 1.0
    assert cohort.weight_variance == 4.0


def test_a_device_that_is_clipped_keeps_its_shares() -> None:
    single = {FEATURE: {3: 5}, CLASSES: {0: 5}, CONFIDENCE: {19: 5}, LATENCY_DEVICE: {9: 5}}
    vector = MECHANISM.contributions(row(single)).vectors[0]
    cohort = MECHANISM.read(vector, variance=1)
    assert cohort.weight < 0.9
    assert cohort.devices == pytest.approx(1)
    assert cohort.histograms[FEATURE][3] / cohort.weight == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("missing", [FEATURE, CLASSES, CONFIDENCE])
def test_a_report_that_lacks_a_monitored_histogram_counts_as_a_device_and_says_nothing_else(missing: str) -> None:
    partial = {name: cells for name, cells in TYPICAL.items() if name != missing}
    vector = MECHANISM.contributions(row(partial)).vectors[0]
    cohort = MECHANISM.read(vector, variance=1)
    assert cohort.weight == 0
    assert all(not cohort.histograms[name].any() for name in (FEATURE, CLASSES, CONFIDENCE))
    assert cohort.devices == pytest.approx(1)


def test_a_model_without_labels_needs_no_class_counts() -> None:
    regression = Mechanism(LAYOUT, has_labels=False)
    vector = regression.contributions(row({FEATURE: {3: 10}})).vectors[0]
    assert regression.read(vector, variance=1).weight > 0.5


@pytest.mark.parametrize(
    ("shift", "largest", "valid"), [(0, 3, True), (1, 127, False), (1, 128, True), (25, 200, False)]
)
def test_only_the_smallest_shift_that_fits_is_valid(shift: int, largest: int, valid: bool) -> None:
    rows = row(TYPICAL).copy()
    rows[0, :2] = shift, largest
    assert MECHANISM.contributions(rows).valid.tolist() == [valid]


def test_a_sum_of_another_layout_is_not_read() -> None:
    with pytest.raises(ValueError, match="cells"):
        MECHANISM.read(np.zeros(7, np.int64), variance=1)


def test_the_clipping_radius_grows_with_the_features_and_stays_far_below_the_worst_case() -> None:
    features = tuple(bundles.feature(name=f"f{i}") for i in range(20))
    wide = Mechanism(Layout.of(bundles.artifact(reference=bundles.reference(features=features))), has_labels=True)
    assert wide.radius_squared / SCALE**2 == pytest.approx(1 + 20 / 12, abs=1e-6)
    assert wide.report_bytes + 64 <= 1_100
