"""The canary: a real subprocess that loads a real model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.bundle import write_manifest
from edge_runtime.errors import Outcome, UpdateError
from edge_runtime.store import Slot, Store
from edge_runtime.update.canary import main, run_canary
from tests.support import tiny


def slot(folder: Path, target: str = "onnx", **options: object) -> Slot:
    release = tiny.release(1, tflite_data=tiny.tflite_bytes(), **options)  # type: ignore[arg-type]
    artifact = next(a for a in release.manifest.artifacts if a.target == target)
    store = Store(folder / "state")
    files = {name: release.files[name] for name in (artifact.file, artifact.golden.file)}
    return store.install(write_manifest(release.manifest), artifact, files)


def outcome(made: Slot, timeout_s: float = 60.0) -> tuple[Outcome, str]:
    with pytest.raises(UpdateError) as caught:
        run_canary(made, timeout_s=timeout_s)
    return caught.value.outcome, str(caught.value)


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_a_good_artifact_passes_in_a_process_of_its_own(tmp_path: Path, target: str) -> None:
    run_canary(slot(tmp_path, target))


def test_a_wrong_answer_to_a_golden_example_fails(tmp_path: Path) -> None:
    wrong = tiny.expected(tiny.windows(4, 7)) + np.float32(0.5)
    found, text = outcome(slot(tmp_path, golden_outputs=wrong))
    assert found is Outcome.CANARY_FAILED
    assert "golden" in text


def test_a_file_that_is_no_model_fails(tmp_path: Path) -> None:
    found, text = outcome(slot(tmp_path, onnx_data=b"not a model" * 100))
    assert found is Outcome.CANARY_FAILED
    assert "ModelRejected" in text


def test_a_slot_that_was_damaged_meanwhile_fails(tmp_path: Path) -> None:
    made = slot(tmp_path)
    (made.path / made.artifact.file).write_bytes(b"")
    assert outcome(made)[0] is Outcome.CANARY_FAILED


def test_an_artifact_that_takes_too_long_fails(tmp_path: Path) -> None:
    found, text = outcome(slot(tmp_path), timeout_s=0.01)
    assert found is Outcome.CANARY_FAILED
    assert "did not end" in text


def test_a_process_that_crashes_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nkill -SEGV $$\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(interpreter))
    found, text = outcome(slot(tmp_path))
    assert found is Outcome.CANARY_FAILED
    assert "-11" in text


def test_where_no_process_can_be_started_the_release_is_not_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    assert outcome(slot(tmp_path))[0] is Outcome.STORE_FAILED


def test_a_missing_engine_is_incompatible_and_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = slot(tmp_path)
    monkeypatch.setattr("edge_runtime.backends.find_spec", lambda name: None)
    limits: list[int] = []
    assert main([str(made.path), made.artifact.file, made.manifest_sha256], limit=limits.append) == 4
    assert "onnxruntime is not installed" in capsys.readouterr().out
    assert limits == [(2 << 30) + 8 * made.artifact.bytes]


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_a_model_that_takes_all_memory_fails(tmp_path: Path) -> None:
    huge = [
        helper.make_node(
            "ConstantOfShape", ["size"], ["zeros"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0])
        ),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["product", "sum"], ["logits"]),
    ]
    model = tiny.onnx_model(operators=huge)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1500 * 2**20], np.int64), "size"))
    found, text = outcome(slot(tmp_path, onnx_data=model.SerializeToString()))
    assert found is Outcome.CANARY_FAILED, text
