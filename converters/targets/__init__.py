"""Targets: one module for each engine's format."""

from __future__ import annotations

from edge_runtime.bundle.manifest import Precision, Target

TARGETS: tuple[Target, ...] = ("onnx", "tflite", "coreml")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-dynamic", "int8-weights")
FILE_SUFFIX = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage.zip"}

__all__ = ["FILE_SUFFIX", "PRECISIONS", "TARGETS"]
