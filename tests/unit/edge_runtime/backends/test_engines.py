"""Both engines load real models, agree with NumPy, and refuse what they must."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_runtime.backends import engine_version, installed_engines, litert, load_engine
from edge_runtime.backends.litert import LiteRtEngine
from edge_runtime.bundle import TensorSpec
from edge_runtime.errors import EngineFailed, EngineMissing, ModelRejected
from tests.support import tiny

MODELS = {
    "onnx": tiny.onnx_bytes(),
    "onnx, one row": tiny.onnx_bytes(batch=1),
    "tflite": tiny.tflite_bytes("dynamic"),
    "tflite, one row": tiny.tflite_bytes("fixed"),
}


def target(case: str) -> str:
    return case.split(",")[0]


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("rows", [1, 5])
def test_answers_are_those_of_numpy_for_one_row_and_for_many(case: str, rows: int) -> None:
    engine = load_engine(target(case), MODELS[case], tiny.release().manifest)
    window = tiny.windows(rows)

    outputs = engine.run({"window": window})

    assert list(outputs) == ["logits"]
    np.testing.assert_allclose(outputs["logits"], tiny.expected(window), atol=1e-5)


@pytest.mark.parametrize("case", MODELS)
def test_a_later_run_does_not_change_an_earlier_answer(case: str) -> None:
    engine = load_engine(target(case), MODELS[case], tiny.release().manifest)
    first = engine.run({"window": tiny.windows(1, 1)})["logits"]
    kept = first.copy()

    engine.run({"window": tiny.windows(1, 2)})

    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("case", ["onnx", "tflite"])
def test_inputs_that_are_not_contiguous_are_taken(case: str) -> None:
    engine = load_engine(case, MODELS[case], tiny.release().manifest)
    window = np.asfortranarray(tiny.windows(1))

    np.testing.assert_allclose(engine.run({"window": window})["logits"], tiny.expected(window), atol=1e-5)


@pytest.mark.parametrize("case", ["onnx", "tflite"])
@pytest.mark.parametrize("interpreters", [1, 3])
def test_many_threads_get_their_own_answers(case: str, interpreters: int) -> None:
    engine = load_engine(case, MODELS[case], tiny.release().manifest, 1, interpreters)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(50):
            window = tiny.windows(1, seed * 1000 + i)
            if not np.allclose(engine.run({"window": window})["logits"], tiny.expected(window), atol=1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("case", ["onnx", "tflite"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_a_damaged_model_is_rejected_by_name(case: str, damage: str) -> None:
    data = {"empty": b"", "garbage": b"not a model at all", "truncated": MODELS[case][:200]}[damage]
    with pytest.raises(ModelRejected):
        load_engine(case, data, tiny.release().manifest)


@pytest.mark.parametrize("case", ["onnx", "tflite"])
@pytest.mark.parametrize(
    "window",
    [
        TensorSpec(name="window", dtype="float32", shape=("batch", 21, 3)),
        TensorSpec(name="window", dtype="float32", shape=("batch", 60)),
        TensorSpec(name="window", dtype="int8", shape=("batch", 20, 3)),
    ],
)
def test_a_model_whose_tensors_are_not_the_manifests_is_rejected(case: str, window: TensorSpec) -> None:
    manifest = replace(tiny.release().manifest, inputs=(window,))
    with pytest.raises(ModelRejected, match="window"):
        load_engine(case, MODELS[case], manifest)


@pytest.mark.parametrize("case", ["onnx", "tflite"])
def test_a_missing_tensor_is_rejected(case: str) -> None:
    manifest = tiny.release().manifest
    more = TensorSpec(name="more", dtype="float32", shape=("batch", 3))
    with pytest.raises(ModelRejected, match="more"):
        load_engine(case, MODELS[case], replace(manifest, inputs=(*manifest.inputs, more)))


@pytest.mark.parametrize("case", ["onnx", "tflite"])
def test_a_single_tensor_may_have_another_name_in_the_file(case: str) -> None:
    manifest = tiny.release().manifest
    renamed = replace(
        manifest,
        inputs=(replace(manifest.inputs[0], name="signal"),),
        outputs=(replace(manifest.outputs[0], name="scores"),),
    )
    window = tiny.windows(1)

    outputs = load_engine(case, MODELS[case], renamed).run({"signal": window})

    np.testing.assert_allclose(outputs["scores"], tiny.expected(window), atol=1e-5)


@pytest.mark.parametrize("bound", [1, 2])
def test_litert_makes_no_more_interpreters_than_it_may(bound: int) -> None:
    engine = load_engine("tflite", MODELS["tflite"], tiny.release().manifest, 1, bound)
    assert isinstance(engine, LiteRtEngine)
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait(5)
        for seed in range(300):
            engine.run({"window": tiny.windows(1, seed)})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(engine._idle) <= bound


def test_an_onnx_model_that_fails_while_running_raises_engine_failed() -> None:
    data = tiny.failing_onnx_bytes()
    engine = load_engine("onnx", data, tiny.release().manifest)
    with pytest.raises(EngineFailed, match="ONNX Runtime"):
        engine.run({"window": tiny.windows(1)})


def test_core_ml_and_unknown_targets_say_that_they_are_not_here() -> None:
    for name in ("coreml", "ncnn"):
        with pytest.raises(EngineMissing):
            load_engine(name, b"", tiny.release().manifest)


def test_installed_engines_state_their_versions() -> None:
    assert installed_engines() == ("onnx", "tflite")
    for name in installed_engines():
        assert engine_version(name) == load_engine(name, MODELS[name], tiny.release().manifest).version
    assert engine_version("coreml") is None


def test_no_room_for_another_interpreter_is_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine("tflite", MODELS["tflite"], tiny.release().manifest, 1, 2)
    engine._idle.clear()  # type: ignore[attr-defined] # the others are busy

    def no_room(**options: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(litert, "Interpreter", no_room)
    with pytest.raises(EngineFailed, match="no memory"):
        engine.run({"window": tiny.windows(1)})
