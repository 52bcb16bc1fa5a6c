from __future__ import annotations

from dataclasses import replace

from bench.peers_quantize.scoring import FLOAT, OURS, QuantizedRow, metrics

ROW = QuantizedRow(
    model="m", target="onnx", tool=OURS, status="ok", precision="int8", bytes=30, bytes_ratio=0.3, labelled_rows=400,
    rows=400, accuracy=0.94, agreement=0.98, convolutional=True, parameters=200_000,
)  # fmt: skip
EXACT = replace(ROW, tool=FLOAT, precision="fp32", bytes=100, bytes_ratio=1.0, accuracy=0.95, agreement=1.0)
PEER = replace(ROW, tool="peer", accuracy=0.93, agreement=0.99)


def test_the_drop_is_against_float_and_the_margin_against_the_smaller_of_float_and_the_best_peer():
    other = replace(PEER, tool="other", accuracy=0.60)
    result = metrics([ROW, EXACT, PEER, other])
    assert result["worst_drop_points"] == 1.0
    assert result["worst_vs_peer_or_float_points"] == 1.0


def test_a_peer_above_float_does_not_raise_the_bar():
    assert metrics([ROW, EXACT, replace(PEER, accuracy=0.99)])["worst_vs_peer_or_float_points"] == -1.0


def test_the_worst_row_decides():
    second = [replace(row, model="n") for row in (replace(ROW, accuracy=0.90), EXACT)]
    result = metrics([ROW, EXACT, PEER, *second])
    assert result["worst_drop_points"] == 5.0
    assert result["worst_vs_peer_or_float_points"] == -5.0


def test_small_and_unlabelled_sets_count_by_agreement_only():
    small = [replace(row, labelled_rows=100) for row in (replace(ROW, accuracy=0.5), EXACT, PEER)]
    result = metrics(small)
    assert result["worst_agreement_gap_points"] == 1.0
    assert result["worst_drop_points"] is None
    assert metrics([ROW, EXACT, PEER])["worst_agreement_gap_points"] is None


def test_bytes_count_for_int8_of_convolutional_models_above_the_size_only():
    assert metrics([ROW, EXACT])["worst_bytes_ratio"] == 0.3
    for other in (
        replace(ROW, precision="int8-weights"),
        replace(ROW, convolutional=False),
        replace(ROW, parameters=100_000),
    ):
        assert metrics([other, EXACT])["worst_bytes_ratio"] is None


def test_nothing_of_ours_where_a_peer_has_something_is_counted_and_scores_nothing():
    refused = replace(ROW, status="refused", bytes=None, bytes_ratio=None)
    result = metrics([refused, EXACT, PEER])
    assert result["without_artifact"] == 1
    assert result["worst_drop_points"] is None
    assert metrics([refused, EXACT, replace(PEER, bytes=None)])["without_artifact"] == 0


def test_a_peer_that_quantized_nothing_is_no_yardstick():
    idle = replace(PEER, labelled_rows=100, bytes_ratio=1.02, agreement=1.0)
    small = [replace(row, labelled_rows=100) for row in (ROW, EXACT, PEER)]
    assert metrics([*small, idle])["worst_agreement_gap_points"] == 1.0
