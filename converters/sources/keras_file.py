"""A ``.keras`` file before Keras sees it: a zip that unpacks safely, and a description without code to run.

Keras refuses Python code itself (its safe mode, which stays on); this refuses it first, with the layer's name and the
way around. Format: https://keras.io/guides/serialization_and_saving/
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.errors import ModelUnreadable
from converters.sources.files import check_archive

__all__ = ["check_keras_file"]

CONFIG = "config.json"
MAX_CONFIG_BYTES = 64 << 20
MAX_DEPTH = 200  # of models inside models, far past any real one
HEADER = b"\x89HDF\r\n\x1a\n"
CODE = {"Lambda": "Lambda layer", "__lambda__": "lambda"}  # what holds marshalled Python


def check_keras_file(path: Path) -> None:
    """Raises `ModelUnreadable` for what is no ``.keras`` file, unsafe to unpack, or would run code when loaded."""
    if not path.is_file():
        raise ModelUnreadable(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            legacy = file.read(len(HEADER)) == HEADER
        way = (
            "it is Keras's legacy HDF5 format: load it with keras.models.load_model and save it as model.keras"
            if legacy
            else "save the model with model.save('name.keras')"
        )
        raise ModelUnreadable(f"{path} is not a .keras file; {way}")
    names = check_archive(path, str(path))
    if CONFIG not in names:
        raise ModelUnreadable(f"{path} is not a .keras file: it holds no {CONFIG}")
    for kind, name in _code(_config(path), 0):
        raise ModelUnreadable(
            f"{path} holds Python code in the {kind} {name}, which loading would run. Replace it by a layer of Keras "
            "or by keras.ops in a functional model; or load the file yourself and give the model to "
            "converters.KerasSource in Python"
        )


def _config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(CONFIG).file_size > MAX_CONFIG_BYTES:
                raise ModelUnreadable(f"{path}: {CONFIG} is larger than {MAX_CONFIG_BYTES} bytes")
            return json.loads(archive.read(CONFIG))
    except (ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise ModelUnreadable(f"{path} is damaged: {CONFIG}: {error}") from error


def _code(node: Any, depth: int) -> Iterator[tuple[str, str]]:
    """(kind, name) of every part of the description that holds Python code."""
    if depth > MAX_DEPTH:
        raise ModelUnreadable(f"the model's description is nested deeper than {MAX_DEPTH}")
    if isinstance(node, list):
        for each in node:
            yield from _code(each, depth + 1)
    elif isinstance(node, dict):
        kind = node.get("class_name")
        if isinstance(kind, str) and kind in CODE:
            inner = node.get("config")
            yield CODE[kind], str(inner.get("name", kind)) if isinstance(inner, dict) else kind
        for each in node.values():
            yield from _code(each, depth + 1)
