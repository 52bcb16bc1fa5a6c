"""Open a trained model of whatever kind, by what it holds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converters.errors import UnsupportedModel
from converters.sources.base import BATCH, Source
from converters.sources.mlflow import SCHEME, mlflow_folder, model_file, model_name
from converters.sources.recognize import recognize

__all__ = ["open_source"]

_kept: list[tempfile.TemporaryDirectory[str]] = []  # downloads that sources read again, until the process ends


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    trust_pickle: bool
    name: str | None
    signature: str | None
    first_axis: str
    axes: Mapping[str, int]
    say: Callable[[str], None] | None


def open_source(
    where: str | Path,
    *,
    trust_pickle: bool = False,
    name: str | None = None,
    signature: str | None = None,
    first_axis: str = BATCH,
    axes: Mapping[str, int] | None = None,
    say: Callable[[str], None] | None = None,
) -> Source:
    """The source in a file, a folder, or at an ``mlflow:`` URI.

    ``name`` is what it will be called, ``signature`` chooses one of a SavedModel, ``first_axis`` names the dynamic
    first axes where their entries are not independent examples, ``axes`` gives those of an ONNX file a size; ``say``
    is told what takes long and what is doubtful. A pickle is loaded only with ``trust_pickle``: it runs whatever code
    it holds.

    Raises `ModelUnreadable` for what is missing or damaged, `PickleRefused`, `UnsupportedModel` for another format,
    `UnsupportedOperator` for custom operators, `ToolMissing` where the package for that format is not installed.
    """
    wishes = _Wishes(
        trust_pickle=trust_pickle, name=name, signature=signature, first_axis=first_axis, axes=axes or {}, say=say
    )
    text = str(where)
    if not text.startswith(SCHEME):
        return _open(Path(where), wishes)
    download = tempfile.TemporaryDirectory(prefix="edgeship-mlflow-")
    _kept.append(download)
    folder = mlflow_folder(text, Path(download.name), say=say)
    # The file inside is called model.onnx or the like, whatever the model is.
    return _open(folder, replace(wishes, name=name or model_name(text)))


def _open(path: Path, wishes: _Wishes) -> Source:
    """Sources import their engines when they are made, so that one kind does not need the packages of all."""
    kind = recognize(path)
    name, first_axis = wishes.name, wishes.first_axis
    if kind == "mlflow":
        return _open(model_file(path), wishes)
    if wishes.axes and kind != "onnx":
        raise UnsupportedModel(f"{path} is no ONNX file; only an ONNX file's axes can be given a size")
    if wishes.signature is not None and kind != "savedmodel":
        raise UnsupportedModel(f"{path} is no SavedModel, so no signature {wishes.signature!r} can be chosen in it")
    if kind == "keras":
        from converters.sources.keras import KerasSource

        return KerasSource(path, name=name, first_axis=first_axis)
    if kind == "savedmodel":
        from converters.sources.savedmodel import SavedModelSource

        return SavedModelSource(path, signature=wishes.signature, name=name, first_axis=first_axis)
    if kind == "onnx":
        from converters.sources.onnx import OnnxSource

        return OnnxSource(path, name=name, first_axis=first_axis, axes=wishes.axes)
    if kind == "tflite":
        from converters.sources.tflite import TfliteSource

        return TfliteSource(path, name=name, first_axis=first_axis)
    if kind == "mlpackage":
        from converters.sources.coreml import CoremlSource

        return CoremlSource(path, name=name, first_axis=first_axis)
    if kind == "pt2":
        from converters.sources.torch import TorchSource

        say = wishes.say or (lambda text: None)
        return TorchSource(path, name=name, first_axis=first_axis, trust_pickle=wishes.trust_pickle, say=say)
    from converters.sources.sklearn import SklearnSource, load_pickle

    if first_axis != BATCH:
        raise UnsupportedModel(f"{path}: scikit-learn answers rows one by one; their axis is {BATCH}, not {first_axis}")
    return SklearnSource(load_pickle(path, trust_pickle=wishes.trust_pickle, say=wishes.say), name=name or path.stem)
