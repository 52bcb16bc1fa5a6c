"""The wire form has one spelling, one size, and a strict reader."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import ReportError
from edge_runtime.telemetry.histograms import Histograms
from edge_runtime.telemetry.layout import Layout
from edge_runtime.telemetry.wire import PrivacyMode, ReportArm, ReportHeader, decode_report, encode_report
from tests.support import tiny

LAYOUT = Layout.of(tiny.release().artifact)
HEADER = ReportHeader(
    mode=PrivacyMode.CENTRAL,
    arm=ReportArm.CANDIDATE,
    release=12,
    day=20_780,
    daily_id=bytes(range(16)),
    model="tiny",
    kind="onnx/fp32",
)


def layouts(model: str, release: int, kind: str) -> Layout | None:
    return LAYOUT if (model, release, kind) == ("tiny", 12, "onnx/fp32") else None


def filled(**counts: list[int]) -> Histograms:
    histograms = Histograms(LAYOUT)
    histograms.add_counts(counts)
    return histograms


def test_small_counts_come_back_exactly() -> None:
    histograms = filled(refused=list(range(16)), reasons=[255] * 16)
    report = decode_report(encode_report(HEADER, histograms), layouts)
    assert report.header == HEADER
    assert report.counts == histograms.counts()
    assert list(report.counts) == [name for name, _ in LAYOUT.histograms]


def test_every_report_of_a_model_has_one_size() -> None:
    empty = encode_report(HEADER, Histograms(LAYOUT))
    full = encode_report(HEADER, filled(reasons=[10**9] * 16))
    assert len(empty) == len(full)


def test_twenty_features_fit_eleven_hundred_bytes() -> None:
    reference = tiny.reference()
    features = tuple(replace(reference.features[i % 6], name=f"feature-{i}") for i in range(20))
    artifact = replace(tiny.release().artifact, reference=replace(reference, features=features))
    layout = Layout.of(artifact)
    header = replace(HEADER, model="m" * 64)
    assert len(encode_report(header, Histograms(layout))) <= 1_100


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**34), min_size=16, max_size=16))
def test_large_counts_come_back_within_a_part_in_255_of_the_largest(counts: list[int]) -> None:
    decoded = decode_report(encode_report(HEADER, filled(refused=counts)), layouts).counts["refused"]
    if max(counts) < 255 << 24:
        assert all(abs(a - b) <= max(counts) / 255 for a, b in zip(counts, decoded, strict=True))
    else:
        assert max(decoded) == 255 << 24


GOOD = encode_report(HEADER, filled(refused=[0] * 15 + [600], reasons=[1] * 16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"EST1",
        b"EST2" + GOOD[4:],
        GOOD[:-1],
        GOOD + b"\0",
        bytes(10_000),
        GOOD[:4] + b"\x09" + GOOD[5:],
        GOOD[:5] + b"\x04" + GOOD[6:],
        GOOD[:6] + bytes(4) + GOOD[10:],
        GOOD.replace(b"tiny", b"Tiny"),
        GOOD.replace(b"tiny", b"tin/"),
        GOOD.replace(b"tiny", b"tin\xff"),
        GOOD.replace(b"tiny", b"othr"),
        GOOD.replace(LAYOUT.digest, bytes(8)),
        GOOD[:-17] + b"\x20" + GOOD[-16:],
        GOOD[:-17] + b"\x09" + bytes(16),
    ],
)
def test_a_report_that_breaks_the_form_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ReportError):
        decode_report(data, layouts)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_what_is_read(at: int, value: int) -> None:
    data = bytearray(GOOD)
    data[at] = value
    try:
        report = decode_report(bytes(data), layouts)
    except ReportError:
        return
    assert (report == decode_report(GOOD, layouts)) == (bytes(data) == GOOD)


def test_a_header_that_cannot_be_is_not_encoded() -> None:
    for wrong in (replace(HEADER, daily_id=b"short"), replace(HEADER, release=0), replace(HEADER, kind="tflite/fp32")):
        with pytest.raises(ReportError):
            encode_report(wrong, Histograms(LAYOUT))


def test_a_layout_without_a_reference_has_no_features() -> None:
    artifact = replace(tiny.release().artifact, reference=None)
    layout = Layout.of(artifact)
    assert layout.features == ()
    assert layout.cells == 32 + 20 + 160 + 160 + 16 + 16
