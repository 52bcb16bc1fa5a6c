from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import ConvertedArtifact, Dataset, KerasSource, convert, read_report
from converters.engines import open_engine
from converters.errors import (
    CheckFailed,
    InvalidRequest,
    OutputExists,
    OutputFull,
    QuantizationRefused,
    TooLittleData,
    UnsupportedModel,
    WrongNames,
)
from converters.parity import refuse_wrong_float
from converters.quantize.recipes import Recipe
from tests.unit.converters.conftest import AXES, LENGTH, dataset, windows

KINDS = {f"{target}/{precision}" for target in ("onnx", "tflite", "coreml") for precision in ("fp32", "int8")}


def test_one_call_makes_three_targets_in_two_precisions(artifacts: dict[str, ConvertedArtifact], folder: Path) -> None:
    assert set(artifacts) == KINDS
    assert {path.name for path in folder.iterdir()} == {a.path.name for a in artifacts.values()} | {"report.json"}
    for artifact in artifacts.values():
        assert artifact.path.stat().st_size == artifact.bytes


def test_float_artifacts_compute_what_the_source_does(artifacts: dict[str, ConvertedArtifact]) -> None:
    for kind in ("onnx/fp32", "tflite/fp32", "coreml/fp32"):
        assert artifacts[kind].max_abs_error < 1e-4
        assert artifacts[kind].agreement == 1.0
        assert artifacts[kind].accuracy == artifacts[kind].source_accuracy
        assert artifacts[kind].float_operators == ()


def test_int8_keeps_accuracy_on_inputs_of_very_different_ranges(artifacts: dict[str, ConvertedArtifact]) -> None:
    for kind in ("onnx/int8", "tflite/int8", "coreml/int8"):
        artifact = artifacts[kind]
        assert artifact.source_accuracy is not None
        assert artifact.source_accuracy > 0.9
        assert artifact.accuracy is not None
        assert artifact.accuracy >= artifact.source_accuracy - 0.01


def test_int8_puts_all_weights_in_int8_and_lists_what_stays_float(artifacts: dict[str, ConvertedArtifact]) -> None:
    for kind, subtraction in (("onnx/int8", "Sub"), ("tflite/int8", "SUB"), ("coreml/int8", "sub")):
        assert artifacts[kind].weight_share == 1.0
        assert subtraction in artifacts[kind].float_operators, "the normalization must stay float, and be said to"
        assert not {"Conv", "CONV_2D", "conv", "linear", "Gemm"} & set(artifacts[kind].float_operators)


def test_latency_is_measured_where_the_engine_runs_and_null_elsewhere(
    artifacts: dict[str, ConvertedArtifact],
) -> None:
    for artifact in artifacts.values():
        assert (artifact.p50_us is None) == (artifact.target == "coreml")
        assert "1 thread" in artifact.evaluated_with or artifact.target == "coreml"


def test_every_artifact_has_its_own_temperature_and_defers_the_share_asked_for(
    artifacts: dict[str, ConvertedArtifact], source: KerasSource
) -> None:
    from converters import confidence_of

    split = dataset(200, 4)
    for artifact in artifacts.values():
        assert artifact.temperature is not None
        assert artifact.threshold is not None
        engine = open_engine(artifact.target, artifact.path.read_bytes(), source.inputs, source.outputs)
        confidences = confidence_of(engine.run(split.inputs)["logits"], artifact.temperature)
        assert np.mean(confidences < artifact.threshold) == pytest.approx(0.2, abs=0.01)


def test_the_report_beside_the_artifacts_reads_back_as_they_were(
    artifacts: dict[str, ConvertedArtifact], folder: Path, source: KerasSource
) -> None:
    report = read_report(folder)
    assert report.artifacts == tuple(artifacts.values())
    assert report.inputs == source.inputs
    assert report.parameters == source.parameters


def test_the_same_model_and_data_give_the_same_bytes(
    artifacts: dict[str, ConvertedArtifact],
    source: KerasSource,
    evaluation: Dataset,
    calibration: Dataset,
    tmp_path: Path,
) -> None:
    again = convert(source, calibration=calibration, evaluation=evaluation, out=tmp_path / "again")
    assert {a.kind: a.sha256 for a in again} == {kind: a.sha256 for kind, a in artifacts.items()}


def test_progress_names_every_artifact_and_counts_to_the_end(
    source: KerasSource, evaluation: Dataset, tmp_path: Path
) -> None:
    steps: list[tuple[str, int, int]] = []
    convert(
        source,
        evaluation=evaluation,
        targets=["onnx"],
        precisions=["fp32"],
        out=tmp_path / "o",
        progress=lambda *step: steps.append(step),
    )
    assert [done for _, done, _ in steps] == list(range(steps[0][2]))
    assert any("onnx fp32" in text for text, _, _ in steps)


def test_conversion_prints_nothing(
    source: KerasSource, evaluation: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert(source, evaluation=evaluation, precisions=["fp32"], out=tmp_path / "o")
    assert capfd.readouterr() == ("", "")


def test_a_window_without_variation_stays_not_finite_in_every_float_and_int8_artifact(
    keras: Any, student: Any, calibration: Dataset, tmp_path: Path
) -> None:
    ops = keras.ops
    window = keras.Input((LENGTH, AXES), name="window")
    spread = ops.log(ops.std(window, axis=(1, 2)))
    wrapped = KerasSource(keras.Model(window, {"logits": student(window) * ops.expand_dims(spread, -1)}), name="log")
    x, y = windows(40, 9)
    made = convert(
        wrapped,
        calibration=calibration,
        evaluation=Dataset(name="e", inputs={"window": x}, labels=y),
        out=tmp_path / "log",
    )
    still = {"window": np.zeros((1, LENGTH, AXES), np.float32)}
    expected = wrapped.predict(still)["logits"]
    assert not np.isfinite(expected).any()
    for artifact in made:
        engine = open_engine(artifact.target, artifact.path.read_bytes(), wrapped.inputs, wrapped.outputs)
        assert not np.isfinite(engine.run(still)["logits"]).any(), artifact.kind
        assert artifact.agreement > 0.9
        assert artifact.mismatched == 0


def test_a_model_of_several_windows_converts_to_onnx_with_its_axis_named(
    keras: Any, student: Any, tmp_path: Path
) -> None:
    ops = keras.ops
    context = keras.Input((LENGTH, AXES), name="context")
    averaged = ops.log(ops.mean(ops.softmax(student(context)), axis=0, keepdims=True))
    teacher = KerasSource(keras.Model(context, {"logits": averaged}), first_axis="n", name="teacher")
    assert teacher.inputs[0].shape == ("n", LENGTH, AXES)
    assert teacher.outputs[0].shape == (1, 3)
    x, y = windows(80, 5)
    rows = Dataset(name="e", inputs={"context": x.reshape(20, 4, LENGTH, AXES)}, labels=y[::4])
    (artifact,) = convert(teacher, evaluation=rows, targets=["onnx"], precisions=["fp32"], out=tmp_path / "t")
    assert artifact.max_abs_error < 1e-3
    engine = open_engine("onnx", artifact.path.read_bytes(), teacher.inputs, teacher.outputs)
    two = {"context": x[None, :2]}
    np.testing.assert_allclose(engine.run(two)["logits"], teacher.predict(two)["logits"], rtol=1e-4)
    for target in ("tflite", "coreml"):
        with pytest.raises(UnsupportedModel, match="dynamic axis n"):
            convert(teacher, evaluation=rows, targets=[target], precisions=["fp32"], out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_int8_that_leaves_the_weights_in_float_is_refused_and_nothing_is_written(
    source: KerasSource, evaluation: Dataset, calibration: Dataset, tmp_path: Path
) -> None:
    dense_only = {"onnx": ("Gemm",), "tflite": ("FULLY_CONNECTED",), "coreml": ("linear",)}
    recipe = Recipe(
        name="dense_only",
        precision="int8",
        weight_bits=8,
        weight_granularity="channel",
        activation_bits=8,
        range_coverage=1.0,
        minimum_weight_share=0.9,
        operators=dense_only,
    )
    for target in dense_only:
        with pytest.raises(QuantizationRefused, match="in INT8, less than the 90%"):
            convert(
                source,
                calibration=calibration,
                evaluation=evaluation,
                targets=[target],
                precisions=["int8"],
                recipe=recipe,
                out=tmp_path / "out",
            )
    assert list(tmp_path.iterdir()) == []


def test_a_float_conversion_that_differs_from_its_source_is_refused() -> None:
    from converters.parity import compare

    expected = {"logits": np.array([[1.0, 2.0], [3.0, 4.0]])}
    with pytest.raises(CheckFailed, match=r"differs from its source by up to 0\.5"):
        refuse_wrong_float("onnx fp32", compare(expected, {"logits": expected["logits"] + 0.5}))
    with pytest.raises(CheckFailed, match="2 of 4 output values are finite"):
        refuse_wrong_float("onnx fp32", compare(expected, {"logits": np.array([[1.0, np.nan], [np.inf, 4.0]])}))


def test_requests_that_cannot_be_met_are_refused_by_name(
    source: KerasSource, evaluation: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for bad, error in (
        ({"targets": ["ncnn"]}, "no target 'ncnn'"),
        ({"precisions": ["int4"]}, "no precision 'int4'"),
        ({"targets": []}, "no target was asked for"),
        ({}, "int8 needs calibration data"),
        ({"recipe": "static_wi4"}, "no recipe 'static_wi4'"),
        ({"precisions": ["fp32"], "deferral_share": 20}, "deferral_share is between 0 and 1"),
    ):
        with pytest.raises(InvalidRequest, match=error):
            convert(source, evaluation=evaluation, out=out, **bad)  # type: ignore[arg-type]
    with pytest.raises(TooLittleData, match="5 rows, at least 32"):
        convert(source, evaluation=evaluation, calibration=dataset(5, 1), out=out)
    with pytest.raises(WrongNames, match="missing: window; not an input: x"):
        convert(source, evaluation=Dataset(name="e", inputs={"x": evaluation.inputs["window"]}), out=out)
    assert not out.exists()


def test_a_folder_that_holds_something_is_not_overwritten_unless_asked(
    source: KerasSource, evaluation: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    request: dict[str, Any] = {"evaluation": evaluation, "targets": ["onnx"], "precisions": ["fp32"], "out": out}
    with pytest.raises(OutputExists):
        convert(source, **request)
    assert (out / "mine.txt").read_text() == "mine"
    convert(source, overwrite=True, **request)
    assert not (out / "mine.txt").exists()
    assert (out / "report.json").is_file()


def test_a_full_disk_is_a_named_error_and_leaves_nothing(
    source: KerasSource, evaluation: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputFull, match="no space left"):
        convert(source, evaluation=evaluation, targets=["onnx"], precisions=["fp32"], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
