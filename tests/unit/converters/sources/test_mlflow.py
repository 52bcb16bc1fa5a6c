from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from converters.errors import ModelUnreadable, PickleRefused, ToolMissing, UnsupportedModel
from converters.sources.mlflow import model_file, model_name
from converters.sources.opening import open_source
from tests.support import tiny


def logged(folder: Path, flavors: dict[str, Any], **files: bytes) -> Path:
    """A model folder as MLflow writes it: the description, and files by their path with ``__`` for ``/``."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder.mkdir(exist_ok=True)
    described = {"flavors": {"python_function": {"loader_module": "mlflow"}, **flavors}, "model_uuid": "0"}
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    return folder


@pytest.mark.parametrize("form", ["uri", "folder"])
def test_a_logged_onnx_model_opens_from_its_folder_without_mlflow(form: str, tmp_path: Path) -> None:
    folder = logged(tmp_path / "m", {"onnx": {"data": "model.onnx"}}, model_dot_onnx=tiny.onnx_bytes())
    source = open_source(f"mlflow:{folder}" if form == "uri" else folder, name="tiny")
    assert (source.kind, source.name) == ("onnx", "tiny")


@pytest.mark.parametrize(
    ("flavors", "file"),
    [
        ({"keras": {"data": "data", "save_exported_model": False}}, "data/model.keras"),
        ({"keras": {"data": "data", "save_exported_model": True}}, "data/model"),
        ({"tensorflow": {"data": "data", "model_type": "keras"}}, "data/model.keras"),
        ({"tensorflow": {"saved_model_dir": "tf2model", "model_type": "tf2-module"}}, "tf2model"),
        ({"sklearn": {"pickled_model": "model.pkl"}}, "model.pkl"),
        ({"pytorch": {"model_data": "data"}}, "data/model.pt2"),
    ],
)
def test_each_flavor_names_its_file(flavors: dict[str, Any], file: str, tmp_path: Path) -> None:
    folder = logged(tmp_path / "m", flavors)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).touch()
    assert model_file(folder) == (folder / file).resolve()


def test_a_logged_scikit_learn_model_is_a_pickle_like_any_other(tmp_path: Path) -> None:
    folder = logged(tmp_path / "m", {"sklearn": {"pickled_model": "model.pkl"}}, model_dot_pkl=pickle.dumps(1))
    with pytest.raises(PickleRefused, match="--trust-pickle"):
        open_source(f"mlflow:{folder}")


@pytest.mark.parametrize(
    ("flavors", "error", "message"),
    [
        ({"pytorch": {"model_data": "data"}}, UnsupportedModel, r"pickled PyTorch module.*torch\.export"),
        ({"xgboost": {"data": "model.xgb"}}, UnsupportedModel, "flavors python_function, xgboost; keras, tensorflow"),
        ({"onnx": {"data": "gone.onnx"}}, ModelUnreadable, "its file is not there"),
        ({"onnx": {"data": "../other.onnx"}}, ModelUnreadable, "not inside the folder"),
    ],
)
def test_what_cannot_be_used_in_a_logged_model_is_named(
    flavors: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "other.onnx").write_bytes(tiny.onnx_bytes())
    with pytest.raises(error, match=message):
        model_file(logged(tmp_path / "m", flavors))


def test_pickled_custom_objects_beside_a_keras_model_are_never_loaded(tmp_path: Path) -> None:
    folder = logged(tmp_path / "m", {"tensorflow": {"data": "data"}}, data__custom_objects_dot_cloudpickle=b"\x80\x05")
    with pytest.raises(UnsupportedModel, match="pickled custom objects"):
        model_file(folder)


@pytest.mark.parametrize("content", ["", "flavors: 3", "- a", "flavors: {onnx: 3}", "a: [", "\x00"])
def test_a_damaged_description_is_unreadable(content: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(content)
    with pytest.raises(ModelUnreadable, match=r"MLmodel"):
        model_file(tmp_path)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("mlflow:models:/waves/3", "waves"),
        ("mlflow:models:/waves@live", "waves"),
        ("mlflow:runs:/0123/model", "model"),
        ("mlflow:/data/waves/", "waves"),
    ],
)
def test_a_source_is_called_as_it_is_registered(uri: str, name: str) -> None:
    assert model_name(uri) == name


def test_a_registry_needs_mlflow_and_says_so() -> None:
    try:
        import mlflow  # noqa: F401
    except ImportError:
        with pytest.raises(ToolMissing, match=r"mlflow:models:/waves/1 needs the package mlflow.*pip install"):
            open_source("mlflow:models:/waves/1")
    else:
        with pytest.raises(ModelUnreadable, match="cannot be fetched"):
            open_source("mlflow:models:/waves/1")
