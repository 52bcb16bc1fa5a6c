"""A model of an MLflow registry, run or folder: which file in it is the model.

A folder on this machine needs nothing of MLflow's: its ``MLmodel`` file says what is where. Other URIs are downloaded
with the mlflow package. Code that MLflow would run, such as pickled custom objects beside a Keras model, is never run.
Format: https://mlflow.org/docs/latest/ml/model/#storage-format
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from converters.errors import ConversionFailed, ModelUnreadable, ToolMissing, UnsupportedModel
from converters.quiet import load_tool, quiet

__all__ = ["DESCRIPTION", "SCHEME", "mlflow_folder", "model_file", "model_name"]

SCHEME = "mlflow:"
DESCRIPTION = "MLmodel"
MAX_DESCRIPTION_BYTES = 8 << 20  # an input example may be inside
INSTALL = "install it: pip install mlflow-skinny"
REMOTE = re.compile(r"(models|runs|mlflow-artifacts):|[a-z0-9+.-]+://")
TO_PT2 = "export the module with torch.export.save(torch.export.export(...), 'model.pt2') and give that"
Flavor = Mapping[str, object]


def mlflow_folder(uri: str, into: Path, *, say: Callable[[str], None] | None = None) -> Path:
    """The folder of ``mlflow:models:/…``, ``mlflow:runs:/…`` (downloaded ``into`` a folder) or ``mlflow:/a/folder``.

    Raises `ToolMissing` without mlflow, `ModelUnreadable` for a model that cannot be fetched.
    """
    where = uri.removeprefix(SCHEME)
    if not REMOTE.match(where):
        return Path(where)
    try:
        artifacts = load_tool("mlflow.artifacts")
    except ToolMissing as error:
        raise ToolMissing(f"{uri} needs the package mlflow, which is not installed here; {INSTALL}") from error
    if say:
        say(f"downloading {where}")
    try:
        with quiet(f"downloading {where}"):
            return Path(artifacts.download_artifacts(artifact_uri=where, dst_path=str(into)))
    except ConversionFailed as error:
        raise ModelUnreadable(f"{uri} cannot be fetched; is MLFLOW_TRACKING_URI set? {error}") from error


def model_name(uri: str) -> str:
    """``waves`` of ``mlflow:models:/waves/3`` and ``mlflow:models:/waves@live``; else the last part of the URI."""
    where = uri.removeprefix(SCHEME).rstrip("/")
    registered = re.match(r"models:/+([^/@]+)", where)
    return registered[1] if registered else where.rsplit("/", 1)[-1]


def model_file(folder: Path) -> Path:
    """The model's own file or folder in an MLflow model: of Keras, TensorFlow, ONNX, PyTorch or scikit-learn.

    Raises `ModelUnreadable` for a folder that is no MLflow model, or whose description points out of it or to nothing;
    `UnsupportedModel` for other flavors, and for code.
    """
    flavors = _flavors(folder)
    for flavor, find in _FINDERS.items():
        if flavor in flavors:
            found = _existing(folder, find(folder, flavors[flavor]))
            if found is not None:
                return found
            raise ModelUnreadable(f"{folder}: its {DESCRIPTION} names a {flavor} model, and its file is not there")
    raise UnsupportedModel(
        f"{folder} holds the flavors {', '.join(sorted(flavors)) or 'none'}; {', '.join(_FINDERS)} can be converted. "
        "Log the model inside it with one of those"
    )


def _flavors(folder: Path) -> dict[str, Flavor]:
    yaml = load_tool("yaml")
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelUnreadable(f"{folder} is not an MLflow model: it holds no file {DESCRIPTION}")
    if path.stat().st_size > MAX_DESCRIPTION_BYTES:
        raise ModelUnreadable(f"{path} is larger than {MAX_DESCRIPTION_BYTES} bytes")
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
        flavors = described["flavors"]
        return {str(name): dict(flavor) for name, flavor in flavors.items()}
    except (
        yaml.YAMLError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ModelUnreadable(f"{path} is damaged: {error}") from error


def _existing(folder: Path, candidates: list[str]) -> Path | None:
    root = folder.resolve()
    for candidate in candidates:
        path = (folder / candidate).resolve()
        if not path.is_relative_to(root):
            raise ModelUnreadable(
                f"{folder}: its {DESCRIPTION} refers to {candidate!a}, which is not inside the folder"
            )
        if path.exists():
            return path
    return None


def _keras(folder: Path, flavor: Flavor) -> list[str]:
    data = str(flavor.get("data", "model"))
    for each in ("custom_objects", "global_custom_objects"):
        if (folder / data / f"{each}.cloudpickle").exists():
            raise UnsupportedModel(
                f"{folder} holds pickled custom objects ({data}/{each}.cloudpickle), whose code loading would run; "
                "load it with mlflow yourself and give the model to converters.KerasSource in Python"
            )
    return [f"{data}/model.keras", f"{data}.keras", f"{data}/model"]


def _tensorflow(folder: Path, flavor: Flavor) -> list[str]:
    if "saved_model_dir" in flavor:
        return [str(flavor["saved_model_dir"])]
    return _keras(folder, flavor)


def _onnx(folder: Path, flavor: Flavor) -> list[str]:
    return [str(flavor.get("data", "model.onnx"))]


def _pytorch(folder: Path, flavor: Flavor) -> list[str]:
    data = str(flavor.get("model_data", "data"))
    exported = sorted(path.relative_to(folder).as_posix() for path in (folder / data).glob("*.pt2"))
    if not exported:
        raise UnsupportedModel(f"{folder} holds a pickled PyTorch module, whose code loading would run; {TO_PT2}")
    return exported


def _sklearn(folder: Path, flavor: Flavor) -> list[str]:
    return [str(flavor.get("pickled_model", "model.pkl"))]


_FINDERS: dict[str, Callable[[Path, Flavor], list[str]]] = {
    "keras": _keras,
    "tensorflow": _tensorflow,
    "onnx": _onnx,
    "pytorch": _pytorch,
    "sklearn": _sklearn,
}
