from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import ConfidenceRule, Dataset, KerasSource, Outcome, Request, run
from converters.engines import open_engine
from converters.errors import (
    CheckFailed,
    InvalidRequest,
    LabelMismatch,
    OutputExists,
    OutputFull,
    TooLittleData,
    WrongNames,
)
from converters.parity import refuse_wrong_float
from converters.pipeline import EXIT_NONE, EXIT_OK, EXIT_SOME
from edge_runtime.bundle import InvalidName, open_bundle
from tests.unit.converters.conftest import AXES, LENGTH, OFFSET, Made, dataset, request_of, windows

KINDS = {f"{target}/{precision}" for target in ("onnx", "tflite", "coreml") for precision in ("fp32", "int8")}


def quick(source: Any, out: Path, **changes: Any) -> Request:
    """A request for one float file, which takes a second."""
    return request_of(source, out, **({"targets": ("onnx",), "precisions": ("fp32",), "confidence": None} | changes))


def test_one_call_makes_three_targets_in_two_precisions(outcome: Outcome, artifacts: dict[str, Made]) -> None:
    assert outcome.exit_code == EXIT_OK
    assert set(artifacts) == KINDS
    names = {path.name for path in outcome.out.iterdir()}
    assert names == {"waves-1.bundle", "report.json", "report.html", "card.md"}
    for made in artifacts.values():
        assert made.path.stat().st_size == made.row.bytes


def test_float_artifacts_compute_what_the_source_does(artifacts: dict[str, Made]) -> None:
    for kind in ("onnx/fp32", "tflite/fp32", "coreml/fp32"):
        row = artifacts[kind].row
        assert row.max_abs_error is not None
        assert row.max_abs_error < 1e-4
        assert row.decision_agreement == 1.0
        assert row.accuracy == row.source_accuracy
        assert row.float_operators == ()
        assert row.bytes == row.source_bytes


def test_int8_keeps_accuracy_on_inputs_of_very_different_ranges(artifacts: dict[str, Made]) -> None:
    for kind in ("onnx/int8", "tflite/int8", "coreml/int8"):
        row = artifacts[kind].row
        assert row.source_accuracy is not None
        assert row.source_accuracy > 0.9
        assert row.accuracy is not None
        assert row.accuracy >= row.source_accuracy - 0.01
        assert row.drop == pytest.approx(row.source_accuracy - row.accuracy)


def test_int8_puts_all_weights_in_int8_and_lists_what_stays_float(artifacts: dict[str, Made]) -> None:
    for kind, subtraction in (("onnx/int8", "Sub"), ("tflite/int8", "SUB"), ("coreml/int8", "sub")):
        row = artifacts[kind].row
        assert row.int8_weight_share is not None
        assert row.int8_weight_share >= 0.9
        assert subtraction in row.float_operators, "the normalization must stay float, and be said to"


def test_latency_is_measured_twice_where_the_engine_runs_and_null_elsewhere(artifacts: dict[str, Made]) -> None:
    for made in artifacts.values():
        assert (made.row.p50_us is None) == (made.row.target == "coreml")
        assert (made.row.p50_aa_ratio is None) == (made.row.target == "coreml")
        assert "1 thread" in (made.row.evaluated_with or "") or made.row.target == "coreml"


def test_every_artifact_has_its_own_threshold_with_a_bounded_risk(
    artifacts: dict[str, Made], source: KerasSource
) -> None:
    from converters import confidence_of

    fresh = dataset(2000, 14)
    for made in artifacts.values():
        chosen = made.row.confidence
        assert chosen is not None
        assert (chosen.score, chosen.target_risk, chosen.delta) == ("msp", 0.05, 0.1)
        engine = open_engine(made.target, made.path.read_bytes(), source.inputs, source.outputs)
        logits = engine.run(fresh.inputs)["logits"]
        trusted = confidence_of(logits, chosen.temperature) >= chosen.threshold
        assert trusted.mean() > 0.5
        assert (logits.argmax(axis=1) != fresh.labels)[trusted].mean() <= 0.05


def test_the_report_is_json_with_everything_that_was_asked(outcome: Outcome) -> None:
    report = json.loads((outcome.out / "report.json").read_text())
    assert [(row["target"], row["asked"]) for row in report["artifacts"]] == [
        (target, precision) for target in ("onnx", "tflite", "coreml") for precision in ("fp32", "int8")
    ]
    for row in report["artifacts"]:
        assert row["status"] == "ok"
        assert row["machine"]
        assert row["tools"]
    assert report["bundle"] == "waves-1.bundle"
    assert report["splits"]["evaluation"]["rows"] == 300
    assert report["exit_code"] == 0
    assert report["source"]["kind"] == "keras"


def test_the_page_for_people_holds_every_row_and_loads_nothing(outcome: Outcome) -> None:
    page = (outcome.out / "report.html").read_text()
    for words in ("waves, release 1", "onnx int8", "coreml fp32", "time first half", "loud"):
        assert words in page
    assert "http" not in page
    assert "<script" not in page


def test_the_same_model_and_data_give_the_same_bytes(outcome: Outcome, source: KerasSource, tmp_path: Path) -> None:
    again = run(request_of(source, tmp_path / "again", confidence=None, targets=("onnx", "coreml")))
    before = {row.kind: row.sha256 for row in outcome.report.artifacts}
    for row in again.report.artifacts:
        assert row.sha256 == before[row.kind], row.kind


def test_progress_names_every_step_and_counts_to_the_end(source: KerasSource, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    run(quick(source, tmp_path / "o"), say=lambda *step: steps.append(step))
    counts = [done for _, done, _ in steps]
    assert counts == sorted(counts)
    assert counts[-1] == steps[0][2] - 1
    assert [done for text, done, _ in steps if text in ("measuring latency", "writing the bundle")] == [4, 5]
    assert any("measuring onnx fp32" in text for text, _, _ in steps)


def test_conversion_prints_nothing(source: KerasSource, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(quick(source, tmp_path / "o"))
    assert capfd.readouterr() == ("", "")


def test_a_window_without_variation_stays_not_finite_in_every_float_and_int8_artifact(
    keras: Any, student: Any, tmp_path: Path
) -> None:
    ops = keras.ops
    window = keras.Input((LENGTH, AXES), name="window")
    spread = ops.log(ops.std(window, axis=(1, 2)))
    wrapped = KerasSource(keras.Model(window, {"logits": student(window) * ops.expand_dims(spread, -1)}), name="log")
    x, y = windows(40, 9)
    evaluation = Dataset(name="e", inputs={"window": x}, labels=y)
    made = run(request_of(wrapped, tmp_path / "log", evaluation=evaluation, confidence=None, max_accuracy_drop=0.1))
    assert made.bundle is not None
    bundle = open_bundle(made.bundle.path)
    still = {"window": np.zeros((1, LENGTH, AXES), np.float32)}
    assert not np.isfinite(wrapped.predict(still)["logits"]).any()
    for row in made.report.artifacts:
        assert row.file is not None, row.reason
        engine = open_engine(row.target, bundle.read(row.file), wrapped.inputs, wrapped.outputs)
        assert not np.isfinite(engine.run(still)["logits"]).any(), row.kind
        assert row.decision_agreement is not None
        assert row.decision_agreement > 0.9
        assert row.mismatched == 0


def test_a_model_of_several_windows_converts_to_onnx_with_its_axis_named_and_is_refused_elsewhere(
    keras: Any, student: Any, tmp_path: Path
) -> None:
    ops = keras.ops
    context = keras.Input((LENGTH, AXES), name="context")
    averaged = ops.log(ops.mean(ops.softmax(student(context)), axis=0, keepdims=True))
    teacher = KerasSource(keras.Model(context, {"logits": averaged}), first_axis="n", name="teacher")
    assert teacher.inputs[0].shape == ("n", LENGTH, AXES)
    x, y = windows(80, 5)
    rows = Dataset(name="e", inputs={"context": x.reshape(20, 4, LENGTH, AXES)}, labels=y[::4])
    made = run(
        quick(teacher, tmp_path / "t", name="teacher", evaluation=rows, calibration=None, targets=("onnx", "tflite"))
    )
    assert made.exit_code == EXIT_SOME
    onnx, tflite = made.report.artifacts
    assert (onnx.status, tflite.status) == ("ok", "refused")
    assert "dynamic axis n" in (tflite.reason or "")
    assert made.bundle is not None
    assert made.bundle.manifest.inputs[0].shape == ("n", LENGTH, AXES)
    engine = open_engine("onnx", open_bundle(made.bundle.path).read(onnx.file or ""), teacher.inputs, teacher.outputs)
    two = {"context": x[None, :2]}
    np.testing.assert_allclose(engine.run(two)["logits"], teacher.predict(two)["logits"], rtol=1e-4)


def test_a_failure_at_the_gate_is_final_and_leaves_the_report_alone_with_exit_code_4(
    source: KerasSource, tmp_path: Path
) -> None:
    # Calibrated on quiet waves and judged on loud ones, which saturate every range.
    quiet, loud = (scaled(dataset(200, seed), factor) for seed, factor in ((3, 0.02), (2, 1.0)))
    made = run(
        request_of(
            source, tmp_path / "o", calibration=quiet, evaluation=loud, confidence=None,
            targets=("onnx",), precisions=("int8",), max_accuracy_drop=0.0,
        )
    )  # fmt: skip
    (row,) = made.report.artifacts
    assert row.status == "failed_gate"
    assert "evaluation rows, more than the 0 allowed" in (row.reason or "")
    assert row.accuracy is not None
    assert made.exit_code == EXIT_NONE
    assert made.bundle is None
    assert {path.name for path in made.out.iterdir()} == {"report.json", "report.html"}


def scaled(data: Dataset, factor: float) -> Dataset:
    """Waves of another size."""
    window = (data.inputs["window"] - OFFSET) * np.float32(factor) + OFFSET
    return replace(data, inputs={"window": window.astype(np.float32)})


def test_a_float_conversion_that_differs_from_its_source_is_refused() -> None:
    expected = {"logits": np.array([[1.0, 2.0], [3.0, 4.0]])}
    with pytest.raises(CheckFailed, match=r"differs from its source by up to 0\.5"):
        refuse_wrong_float("onnx fp32", expected, {"logits": expected["logits"] + 0.5})
    with pytest.raises(CheckFailed, match="2 of 4 values of output logits are finite"):
        refuse_wrong_float("onnx fp32", expected, {"logits": np.array([[1.0, np.nan], [np.inf, 4.0]])})


def test_zeros_are_no_conversion_of_very_small_outputs() -> None:
    expected = {"density": np.random.default_rng(0).normal(size=(20, 2)) * 1e-5}
    refuse_wrong_float("onnx fp32", expected, {"density": expected["density"] * 1.0001})
    with pytest.raises(CheckFailed, match=r"output density explains 0\.0000 of the variance"):
        refuse_wrong_float("onnx fp32", expected, {"density": np.zeros((20, 2))})
    constant = {"density": np.full((20, 2), 1e-5)}
    refuse_wrong_float("onnx fp32", constant, {"density": np.full((20, 2), 1.01e-5)})


def test_a_wrong_output_is_not_hidden_by_a_larger_one() -> None:
    expected = {"boxes": np.array([[900.0, 1200.0]]), "scores": np.array([[0.9, 0.1]])}
    refuse_wrong_float("onnx fp32", expected, {**expected, "boxes": expected["boxes"] + 0.5})
    with pytest.raises(CheckFailed, match=r"output scores differs from its source by up to 0\.8"):
        refuse_wrong_float("onnx fp32", expected, {**expected, "scores": expected["scores"][:, ::-1]})


def test_requests_that_cannot_be_met_are_refused_by_name_and_write_nothing(source: KerasSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for bad, error, message in (
        ({"targets": ("ncnn",)}, InvalidRequest, "no target 'ncnn'"),
        ({"precisions": ("int4",)}, InvalidRequest, "no precision 'int4'"),
        ({"targets": ()}, InvalidRequest, "no target was asked for"),
        ({"precisions": ("int8",), "calibration": None}, InvalidRequest, "int8 needs calibration data"),
        ({"quantization": "static_wi4"}, InvalidRequest, "no quantization 'static_wi4'"),
        ({"rule": ConfidenceRule(deferral_share=20)}, InvalidRequest, "deferral_share is between 0 and 1"),
        ({"rule": ConfidenceRule(target_risk=0)}, InvalidRequest, "target_risk"),
        ({"max_accuracy_drop": 2}, InvalidRequest, "max_accuracy_drop is a share"),
        ({"name": "Waves"}, InvalidName, "model name"),
        ({"release": 0}, InvalidName, "release number"),
        ({"labels": ("a", "b")}, InvalidRequest, "2 labels for 3 classes"),
        ({"precisions": ("int8",), "calibration": dataset(5, 1)}, TooLittleData, "5 rows, at least 8"),
        ({"evaluation": Dataset(name="e", inputs={"x": np.zeros((9, 3))})}, WrongNames, "not an input: x"),
        ({"evaluation": replace(dataset(9, 2), labels=np.full(9, 3))}, LabelMismatch, "classes are 0 to 2"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            run(quick(source, out, **bad))
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_not_overwritten_unless_asked(source: KerasSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists):
        run(quick(source, out))
    assert (out / "mine.txt").read_text() == "mine"
    with pytest.raises(OutputExists, match=r"holds mine\.txt, which this command did not write"):
        run(quick(source, out, overwrite=True))
    (out / "mine.txt").rename(out / "report.json")
    run(quick(source, out, overwrite=True))
    assert (out / "report.json").read_text() != "mine"
    assert (out / "report.json").is_file()


def test_a_full_disk_is_a_named_error_and_leaves_nothing(
    source: KerasSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputFull, match="no space left"):
        run(quick(source, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_rows_that_evaluation_shares_with_calibration_are_counted_and_said(source: KerasSource, tmp_path: Path) -> None:
    both = dataset(300, 2)
    made = run(quick(source, tmp_path / "o", evaluation=both, calibration=both.at(np.arange(250))))
    assert any(
        "250 of 300 evaluation rows (83.3%) are in the calibration data too" in each for each in made.report.warnings
    )
