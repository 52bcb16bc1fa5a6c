from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import KerasSource
from converters.errors import ModelUnreadable
from converters.sources.coreml import CoremlSource
from converters.sources.opening import open_source
from converters.targets.coreml import coreml_program, pack_program


@pytest.fixture(scope="module")
def packed(keras: Any) -> tuple[Any, bytes]:
    keras.utils.set_random_seed(4)
    x = keras.Input((8,), name="x")
    layers = [keras.layers.Dense(5, bias_initializer="ones"), keras.layers.Dense(3, "softmax", bias_initializer="ones")]
    model = keras.Model(x, {"scores": layers[1](layers[0](x))})  # coremltools leaves out biases of zero
    source = KerasSource(model, name="net")
    return source, pack_program(coreml_program(source.frozen(batch=1), source.inputs))


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_package_is_taken_as_it_is_and_answers_as_its_source(
    packed: tuple[Any, bytes], form: str, tmp_path: Path
) -> None:
    keras_source, data = packed
    path = tmp_path / "net.mlpackage"
    if form == "zip":
        path = tmp_path / "net.mlpackage.zip"
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(tmp_path / "out")
        next((tmp_path / "out").iterdir()).rename(path)
    source = open_source(path)
    assert isinstance(source, CoremlSource)
    assert (source.kind, source.name, source.precision, source.activation) == ("coreml", "net", "fp32", "softmax")
    assert source.parameters == keras_source.parameters
    assert source.inputs[0].shape == ("batch", 8)
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    expected = keras_source.predict({"x": x})["scores"]
    np.testing.assert_allclose(source.predict({"x": x})["scores"], expected, rtol=1e-4, atol=1e-5)
    if form == "zip":
        assert source.data == data
    else:
        assert source.data == CoremlSource(path).data, "the same folder gives the same bytes"


def test_a_folder_or_a_zip_without_a_package_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "bare.mlpackage").mkdir()
    with pytest.raises(ModelUnreadable, match=r"holds no Manifest\.json"):
        CoremlSource(tmp_path / "bare.mlpackage")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.mlpackage/Manifest.json", "{}")
        archive.writestr("b.mlpackage/Manifest.json", "{}")
    with pytest.raises(ModelUnreadable, match="exactly one"):
        CoremlSource(tmp_path / "two.zip")
