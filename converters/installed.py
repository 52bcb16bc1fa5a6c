"""The versions of what converted, for the lineage of what was converted and for its report."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from converters.environments import ENVIRONMENTS
from converters.report import Row
from converters.sources.base import Kind

__all__ = ["versions_used"]

TENSORFLOW = ("tensorflow", "tensorflow-cpu")  # it goes by one of two names
ALWAYS = ("edgeship", "numpy")
OF_SOURCE: Mapping[Kind, tuple[str, ...]] = {
    "keras": ("keras", *TENSORFLOW),
    "savedmodel": TENSORFLOW,
    "onnx": ("onnx", "onnxruntime"),
    "torch": ("torch",),
    "tflite": ("ai-edge-litert",),
    "coreml": ("coremltools",),
    "sklearn": ("scikit-learn",),
}
OF_TARGET = {"onnx": ("onnx", "onnxruntime"), "tflite": ("ai-edge-litert",), "coreml": ("coremltools",)}
OF_TOOL = {
    "TFLiteConverter": TENSORFLOW,
    "torch.onnx": ("torch", "onnxscript"),
    "torch.export": ("torch",),
    "litert-torch": ("torch", "litert-torch", "litert-converter"),
}  # any other is a package of its own name
HELPERS = ("litert-converter", "litert-torch", "onnx2tf", "onnxscript", "torch")  # always in their own environment
QUANTIZER = {"tflite": ("ai-edge-quantizer",)}


def versions_used(kind: Kind, rows: Sequence[Row]) -> dict[str, str]:
    """Version by name: Python, the system, and the packages that a source of this kind needed to become ``rows``, be
    they installed here or in a helper environment."""
    names = {*ALWAYS, *OF_SOURCE[kind]}
    for row in rows:
        if row.bytes is None and not row.tools:  # refused before any work
            continue
        names.update(OF_TARGET[row.target])
        names.update(each for tool in row.tools for each in OF_TOOL.get(tool, (tool,)))
        if row.candidates:
            names.update(QUANTIZER.get(row.target, ()))
    system = {"python": platform.python_version(), platform.system().lower(): platform.release()[:64] or "unknown"}
    return {**system, **dict(sorted(_versions(names).items()))}


def _versions(names: Iterable[str]) -> dict[str, str]:
    pins = dict(pin.split("==") for each in ENVIRONMENTS.values() for pin in each.requirements)
    versions = {}
    for name in names:
        try:
            versions[name] = pins[name] if name in HELPERS else version(name)
        except PackageNotFoundError:
            continue  # one of TensorFlow's two names
    return versions
