"""The versions of what converts, for the lineage of what was converted."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_packages"]

PACKAGES = (
    "ai-edge-litert", "ai-edge-quantizer", "coremltools", "edgeship", "keras", "numpy", "onnx", "onnx2coreml",
    "onnxruntime", "scikit-learn", "skl2onnx", "tensorflow", "tensorflow-cpu", "tf2onnx",
)  # fmt: skip


def installed_packages() -> dict[str, str]:
    """Version by name, of those that are installed here."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # tensorflow goes by one of two names, and extras are optional
    return versions
