"""What kind of model a file or folder holds, by its content first and its name second. Nothing is loaded here."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

from converters.errors import ModelUnreadable, UnsupportedModel

__all__ = ["KNOWN", "Format", "recognize"]

Format = Literal["keras", "savedmodel", "onnx", "pt2", "tflite", "mlpackage", "pickle", "mlflow"]

KNOWN = (
    "a .keras file, a SavedModel folder, .onnx, .pt2 (torch.export), .tflite, .mlpackage (folder or zip), a pickled "
    "scikit-learn estimator (.pkl, .joblib), or mlflow:<model URI>"
)
HEAD = 16  # bytes that tell most formats apart
PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".sav"})
TO_KERAS = "load it with keras.models.load_model and save it as model.keras"
TO_PT2 = "in Python, torch.export.save(torch.export.export(module.eval(), (example_input,)), 'model.pt2')"
# What is recognized and cannot be used, and how to make a usable file of it.
HDF5 = f"is an HDF5 file, Keras's legacy format: {TO_KERAS}"
TORCH = f"holds PyTorch weights or a pickled module, not a program: {TO_PT2}"
TORCHSCRIPT = f"is TorchScript, which PyTorch no longer develops: {TO_PT2}; or give an ONNX export"
FROZEN = "is a TensorFlow GraphDef without a signature: save it with tf.saved_model.save, or convert it with tf2onnx"
MLMODEL = "is a Core ML model of the older kind: convert its source to an mlprogram (.mlpackage) with coremltools"
WEIGHTS = "holds weights only, without the network: load them into their model and give that"
SKOPS = "is a skops file: load it with skops.io.load and a list of trusted types, and give the object to SklearnSource"
ORT = "is ONNX Runtime's own format, for one version and processor: give the .onnx that it was made from"
BUNDLE = "is a finished bundle: `edgeship-convert inspect` shows it"
OF_SUFFIX = {
    ".h5": HDF5, ".hdf5": HDF5, ".pt": TORCH, ".pth": TORCH, ".ckpt": TORCH, ".pb": FROZEN,
    ".mlmodel": MLMODEL, ".safetensors": WEIGHTS, ".gguf": WEIGHTS, ".npz": WEIGHTS, ".skops": SKOPS, ".ort": ORT,
    ".bundle": BUNDLE, ".jit": TORCHSCRIPT, ".torchscript": TORCHSCRIPT,
    ".mlmodelc": "is compiled for Apple's systems: give the .mlpackage that it was made from",
    ".pmml": "is PMML: give the estimator that it was made from, pickled, or its ONNX by skl2onnx",
    ".engine": "is a TensorRT engine for one GPU: give the .onnx that it was made from",
}  # fmt: skip


def recognize(path: Path) -> Format:
    """Raises `ModelUnreadable` for what does not exist or is empty, `UnsupportedModel` for a format that cannot be
    used, with the way to one that can."""
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise ModelUnreadable(f"{path}: no such file or folder")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise ModelUnreadable(f"{path} is empty")
    found = _of_zip(path) if head[:2] == b"PK" else _of_head(path, head)
    if found is not None:
        return found
    suffix = path.suffix.lower()
    if suffix in OF_SUFFIX:
        raise UnsupportedModel(f"{path} {OF_SUFFIX[suffix]}")
    if suffix in (".keras", ".tflite", ".pt2", ".mlpackage"):
        raise ModelUnreadable(f"{path} does not hold what its name says, or is damaged")
    raise UnsupportedModel(f"{path} is of no format that is known here. Give {KNOWN}")


def _of_folder(path: Path) -> Format:
    if (path / "MLmodel").is_file():
        return "mlflow"
    if (path / "saved_model.pb").is_file():
        return "savedmodel"
    if (path / "Manifest.json").is_file() and (path / "Data").is_dir():
        return "mlpackage"
    if path.suffix == ".mlmodelc" or (path / "coremldata.bin").exists():
        raise UnsupportedModel(f"{path} {OF_SUFFIX['.mlmodelc']}")
    if (path / "saved_model.cpb").exists() or (path / "saved_model.pbtxt").exists():
        raise UnsupportedModel(f"{path} is a split or textual SavedModel: save it again, in one saved_model.pb")
    if (path / "config.json").is_file() and (path / "model.weights.h5").is_file():
        raise UnsupportedModel(f"{path} is an unpacked .keras file: {TO_KERAS}")
    if (path / "config.json").is_file():
        raise UnsupportedModel(
            f"{path} looks like a model of the transformers library: export it to ONNX with optimum "
            "(optimum-cli export onnx), or with torch.export"
        )
    raise UnsupportedModel(f"the folder {path} holds no model that is known here. Give {KNOWN}")


def _of_head(path: Path, head: bytes) -> Format | None:
    suffix = path.suffix.lower()
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[4:8] == b"ORTM":
        raise UnsupportedModel(f"{path} {ORT}")
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        raise UnsupportedModel(f"{path} {HDF5}")
    if head[:4] == b"GGUF" or (suffix == ".safetensors" and head[8:9] == b"{"):
        raise UnsupportedModel(f"{path} {WEIGHTS}")
    if suffix in PICKLE_SUFFIXES:
        return "pickle"  # joblib compresses in several ways, which have nothing in common
    if head[0] == 0x80 and head[1] <= 5:  # the protocol number of a pickle
        if suffix in (".pt", ".pth", ".bin", ".ckpt"):
            raise UnsupportedModel(f"{path} {TORCH}")
        return "pickle"
    # An ONNX file and a .mlmodel begin alike, with a version number as field 1 of a protobuf.
    if suffix == ".onnx" or (head[0] == 0x08 and suffix not in OF_SUFFIX):
        return "onnx"
    return None


def _of_zip(path: Path) -> Format | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelUnreadable(f"{path} is a damaged zip file: {error}") from error
    inner = {re.sub(r"^[^/]+/", "", name) for name in names} | set(names)
    if "config.json" in names and ("model.weights.h5" in names or "metadata.json" in names):
        return "keras"
    if any(re.match(r"[^/]+\.mlpackage/Manifest\.json$", name) for name in names):
        return "mlpackage"
    if "schema.json" in names:
        raise UnsupportedModel(f"{path} {SKOPS}")
    if any(name.startswith("models/") and name.endswith("/manifest.json") for name in names):
        raise UnsupportedModel(f"{path} {BUNDLE}")
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        raise UnsupportedModel(f"{path} {TORCHSCRIPT}")
    if "data.pkl" in inner and "archive_format" not in inner:
        raise UnsupportedModel(f"{path} {TORCH}")
    if {"archive_format", "serialized_exported_program.json"} & inner or path.suffix.lower() == ".pt2":
        return "pt2"
    if any(name.endswith("saved_model.pb") for name in names):
        raise UnsupportedModel(f"{path} is a zipped SavedModel: unpack it and give the folder")
    return None
