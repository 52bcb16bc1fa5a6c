from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.engines import open_engine
from converters.errors import ModelUnreadable, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool
from converters.sources.opening import open_source
from converters.sources.savedmodel import SavedModelSource
from converters.targets.onnx import convert_to_onnx
from converters.targets.tflite import convert_to_tflite
from tests.unit.converters.conftest import AXES, LENGTH, small_net, windows


@pytest.fixture(scope="module")
def tf() -> Any:
    return load_tool("tensorflow")


@pytest.fixture(scope="module")
def exported(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    keras.utils.set_random_seed(5)
    model = small_net(keras)
    folder = tmp_path_factory.mktemp("exported") / "waves"
    model.export(folder, verbose=False)
    return model, folder


def save(tf: Any, folder: Path, signatures: dict[str, Any], **parts: Any) -> Path:
    """``signatures`` are (function, input spec) by name; ``parts`` are variables and tables that functions use."""
    module = tf.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    functions = {name: tf.function(f, input_signature=[spec]) for name, (f, spec) in signatures.items()}
    tf.saved_model.save(module, str(folder), signatures=functions)
    return folder


def test_an_exported_keras_model_is_the_same_source_as_the_object(exported: tuple[Any, Path]) -> None:
    model, folder = exported
    source = open_source(folder)
    assert source.kind == "savedmodel"
    assert source.name == "waves"
    assert source.inputs[0].shape == ("batch", LENGTH, AXES)
    assert source.parameters == model.count_params()
    assert source.activation is None
    x, _ = windows(5, 1)
    (answer,) = source.predict({source.inputs[0].name: x}).values()
    np.testing.assert_allclose(answer, model(x, training=False), rtol=1e-4, atol=1e-4)


def test_it_is_frozen_for_every_target_and_again_after_another_of_the_same_origin(exported: tuple[Any, Path]) -> None:
    _, folder = exported
    source, twin = SavedModelSource(folder), SavedModelSource(folder)
    rows = {source.inputs[0].name: windows(4, 2)[0]}
    expected = source.predict(rows)
    twin.predict(rows)
    for target, data in (
        ("onnx", convert_to_onnx(source.frozen(), source.inputs, source.outputs)),
        ("tflite", convert_to_tflite(twin.frozen(batch=1), twin.inputs, twin.outputs)),
    ):
        actual = open_engine(target, data, source.inputs, source.outputs).run(rows)
        for name in expected:
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-3, atol=1e-3, err_msg=target)


def test_a_plain_module_keeps_the_names_of_its_signature_in_their_order(tf: Any, tmp_path: Path) -> None:
    weight = tf.Variable(np.ones((3, 2), np.float32))

    def call(x: Any) -> dict[str, Any]:
        return {f"part_{index}": tf.nn.softmax(x @ weight * index) for index in (10, 2)}

    folder = save(tf, tmp_path / "m", {"score": (call, tf.TensorSpec([None, 3], tf.float32, name="x"))}, weight=weight)
    source = SavedModelSource(folder, name="plain")
    assert [spec.name for spec in source.outputs] == ["part_2", "part_10"]
    assert source.parameters == 6
    assert source.activation == "softmax"
    assert source.predict({"x": np.ones((2, 3))})["part_2"].tolist() == [[0.5, 0.5]] * 2


def test_several_signatures_are_listed_and_one_can_be_chosen(tf: Any, tmp_path: Path) -> None:
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    both = {"one": (lambda x: {"y": x + 1}, spec), "two": (lambda x: {"y": x + 2}, spec)}
    folder = save(tf, tmp_path / "m", both)
    with pytest.raises(UnsupportedModel, match=r"2 signatures .*\(one, two\); name one"):
        open_source(folder)
    with pytest.raises(UnsupportedModel, match="no signature 'three'; it has one, two"):
        open_source(folder, signature="three")
    assert open_source(folder, signature="two").predict({"x": np.zeros((1, 3))})["y"].tolist() == [[2.0] * 3]


def test_a_batch_fixed_to_one_is_asked_row_by_row(tf: Any, tmp_path: Path) -> None:
    spec = tf.TensorSpec([1, 3], tf.float32, name="x")
    source = SavedModelSource(save(tf, tmp_path / "m", {"serve": (lambda x: {"y": x * 2}, spec)}))
    assert source.inputs[0].shape == ("batch", 3)
    assert source.one_at_a_time
    assert source.predict({"x": np.ones((4, 3))})["y"].shape == (4, 3)
    assert source.frozen(batch=None).function().inputs[0].shape == (1, 3)


def test_a_tensor_of_unknown_rank_is_refused_by_name(tf: Any, tmp_path: Path) -> None:
    folder = save(tf, tmp_path / "m", {"serve": (lambda x: {"y": x}, tf.TensorSpec(None, tf.float32, name="x"))})
    with pytest.raises(UnsupportedModel, match="how many axes tensor x has"):
        SavedModelSource(folder)


def test_a_lookup_table_is_refused_with_the_operators_name(tf: Any, tmp_path: Path) -> None:
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(np.arange(3, dtype=np.int64), np.arange(3, dtype=np.int64)), -1
    )
    spec = tf.TensorSpec([None], tf.int64, name="x")
    folder = save(tf, tmp_path / "m", {"serve": (lambda x: {"y": table.lookup(x)}, spec)}, table=table)
    with pytest.raises(UnsupportedOperator, match=r"a lookup table, which no target can hold") as raised:
        SavedModelSource(folder)
    assert raised.value.operator in ("HashTableV2", "LookupTableFindV2")


def test_a_random_operator_is_refused_with_its_name(tf: Any, tmp_path: Path) -> None:
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    folder = save(tf, tmp_path / "m", {"serve": (lambda x: {"y": x + tf.random.normal([3])}, spec)})
    with pytest.raises(UnsupportedOperator, match=r"RandomStandardNormal: .*draws at random"):
        SavedModelSource(folder)


def test_a_recurrent_layer_converts_where_there_is_a_loop(keras: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    x = keras.Input((6, 3), name="x")
    keras.Model(x, keras.layers.Dense(2)(keras.layers.LSTM(4)(x))).export(tmp_path / "m", verbose=False)
    source = SavedModelSource(tmp_path / "m")
    rows = {"x": np.random.default_rng(1).normal(size=(3, 6, 3)).astype(np.float32)}
    expected = source.predict(rows)
    lowered = source.frozen(batch=1, lower_control_flow=True)
    data = convert_to_tflite(lowered, source.inputs, source.outputs)
    actual = open_engine("tflite", data, source.inputs, source.outputs).run(rows)
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5)


def test_what_is_no_savedmodel_or_damaged_is_unreadable(exported: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"holds no saved_model\.pb"):
        SavedModelSource(tmp_path)
    graph = (exported[1] / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
    with pytest.raises(ModelUnreadable, match="damaged"):
        SavedModelSource(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(graph)
    with pytest.raises(ModelUnreadable, match="damaged"):
        SavedModelSource(tmp_path)
