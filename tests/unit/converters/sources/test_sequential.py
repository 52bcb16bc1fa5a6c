from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import KerasSource
from converters.engines import open_engine
from converters.errors import ModelUnreadable, UnsupportedModel
from converters.targets.coreml import coreml_program, pack_program
from converters.targets.onnx import convert_to_onnx
from converters.targets.tflite import convert_to_tflite
from tests.unit.converters.conftest import AXES, LENGTH


def sequential(keras: Any, name: str | None = "window") -> Any:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((LENGTH, AXES), name=name),
            layers.Conv1D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, name="logits"),
        ]
    )


@pytest.mark.parametrize("saved", [False, True], ids=["object", "file"])
def test_a_built_sequential_converts_to_every_target_as_a_functional_model_does(
    keras: Any, tmp_path: Path, saved: bool
) -> None:
    model = sequential(keras)
    model.save(tmp_path / "seq.keras")
    source = KerasSource(tmp_path / "seq.keras" if saved else model)
    assert [spec.shape for spec in source.inputs] == [("batch", LENGTH, AXES)]
    rows = {"window": np.random.default_rng(1).normal(0, 2, (4, LENGTH, AXES)).astype(np.float32)}
    expected = model(rows["window"], training=False)
    np.testing.assert_allclose(source.predict(rows)["logits"], expected, rtol=1e-4, atol=1e-5)
    one = source.frozen(batch=1)
    for target, data in (
        ("onnx", convert_to_onnx(source.frozen(), source.inputs, source.outputs)),
        ("tflite", convert_to_tflite(one, source.inputs, source.outputs)),
        ("coreml", pack_program(coreml_program(one, source.inputs))),
    ):
        actual = open_engine(target, data, source.inputs, source.outputs).run(rows)["logits"]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=target)


def test_an_input_without_a_name_is_called_the_same_before_and_after_saving(keras: Any, tmp_path: Path) -> None:
    model = sequential(keras, name=None)
    model.save(tmp_path / "seq.keras")
    (spec,) = KerasSource(model).inputs
    assert spec.name.startswith("input_layer")
    assert KerasSource(tmp_path / "seq.keras").inputs == (spec,)


def test_a_sequential_that_is_not_built_is_refused_by_name(keras: Any) -> None:
    model = keras.Sequential([keras.layers.Dense(3)], name="bare")
    with pytest.raises(UnsupportedModel, match=r"bare is a keras\.Sequential that is not built; put keras\.Input"):
        KerasSource(model)


def test_a_custom_layer_in_a_file_is_named_in_one_line(keras: Any, tmp_path: Path) -> None:
    class Doubled(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    path = tmp_path / "custom.keras"
    keras.Sequential([keras.Input((4,), name="window"), Doubled(), keras.layers.Dense(3)]).save(path)
    with pytest.raises(ModelUnreadable, match=r"the custom class Doubled.*custom_objects=\{'Doubled'") as raised:
        KerasSource(path)
    assert "\n" not in str(raised.value)
    assert KerasSource(path, custom_objects={"Doubled": Doubled}).parameters == 15
