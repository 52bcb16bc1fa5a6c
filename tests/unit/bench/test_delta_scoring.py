from __future__ import annotations

from dataclasses import replace

from bench.peers_delta.scoring import DeltaRow, Measured, best_peer, metrics, ratio_to_best_peer

ROW = DeltaRow(
    model="m", target="onnx", precision="int8", change="1 %", how="", old_bytes=5_000_000, new_bytes=5_000_000,
    zstd_bytes=4_000_000, ours=Measured(patch_bytes=900_000, make_s=2.0, apply_ms=40.0, peak_bytes=6_000_000),
    peers={"a": Measured(patch_bytes=1_200_000), "b": Measured(patch_bytes=1_000_000)},
)  # fmt: skip


def ours(patch_bytes: int) -> DeltaRow:
    return replace(ROW, ours=replace(ROW.ours, patch_bytes=patch_bytes))


def test_the_best_peer_is_the_one_with_the_smallest_patch():
    assert best_peer(ROW) == "b"
    assert ratio_to_best_peer(ROW) == 0.9


def test_a_kilobyte_more_or_less_counts_as_alike_and_a_byte_beyond_does_not():
    assert ratio_to_best_peer(ours(1_001_024)) == 1.0
    assert ratio_to_best_peer(ours(998_976)) == 1.0
    assert ratio_to_best_peer(ours(1_001_025)) == 1.001025
    assert ratio_to_best_peer(ours(998_975)) == 0.998975


def test_a_peer_that_could_not_be_installed_is_null_and_beats_nobody():
    row = replace(ROW, peers={"a": ROW.peers["a"], "b": Measured(reason="not installed: no network")})
    assert best_peer(row) == "a"
    flat = row.flat()
    assert flat["b_bytes"] is None
    assert flat["b_apply_ms"] is None
    assert flat["reason"] == "b not installed: no network"


def test_without_any_peer_there_is_no_ratio():
    row = replace(ROW, peers={"a": Measured(reason="crashed: SIGSEGV")})
    assert best_peer(row) is None
    assert ratio_to_best_peer(row) is None
    assert metrics([row])["worst_ratio_to_best_peer"] is None


def test_the_worst_row_decides():
    assert metrics([ROW, ours(1_100_000), ours(10)])["worst_ratio_to_best_peer"] == 1.1


def test_apply_time_is_the_slowest_of_a_file_of_about_5_mb_alone():
    slower = replace(ROW, ours=replace(ROW.ours, apply_ms=50.0))
    large = replace(ROW, new_bytes=18_000_000, ours=replace(ROW.ours, apply_ms=900.0))
    assert metrics([ROW, slower, large])["apply_ms_5mb"] == 50.0
    assert metrics([large])["apply_ms_5mb"] is None


def test_extra_memory_is_beyond_both_files_and_may_be_negative():
    assert ROW.extra_mb == -4.0
    assert metrics([ROW])["apply_extra_mb"] == -4.0
    small = replace(ROW, old_bytes=20_000, new_bytes=20_000)
    assert metrics([ROW, small])["apply_extra_mb"] == 5.96
    unknown = replace(ROW, ours=replace(ROW.ours, peak_bytes=None))
    assert metrics([unknown])["apply_extra_mb"] is None


def test_every_row_has_the_same_columns():
    missing = replace(ROW, peers={name: Measured(reason="not there") for name in ROW.peers})
    assert list(missing.flat()) == list(ROW.flat())
