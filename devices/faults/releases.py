"""Three small real releases to update between: float32 x[batch, 4] → float32 y[batch, 3], one matrix product in ONNX.

The model's few bytes of protobuf are written here, so that a simulation needs an engine and no exporter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime import Factory, golden
from edge_runtime.bundle import (
    MANIFEST_FILE,
    Artifact,
    Golden,
    Lineage,
    Manifest,
    Measurement,
    Preprocessing,
    Requirements,
    TensorSpec,
    golden_file,
    target_path,
    write_bundle,
    write_manifest,
)

__all__ = ["MODEL", "SimulatedRelease", "release"]

MODEL = "simulated"
INPUTS, OUTPUTS = 4, 3
FILE = f"{MODEL}-fp32.onnx"
_FLOAT = 1  # TensorProto.FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRelease:
    """``weights`` are float32[4, 3]; ``files`` the artifact and its golden examples."""

    manifest: Manifest
    files: dict[str, bytes]
    weights: NDArray[np.float32]

    def expected(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x @ self.weights

    def factory(self, folder: Path) -> Factory:
        """A bundle of this release in ``folder``."""
        path = folder / f"{MODEL}-{self.manifest.release}.bundle"
        files: dict[str, bytes] = {MANIFEST_FILE: write_manifest(self.manifest), **self.files}
        digest = write_bundle(
            path, {target_path(MODEL, self.manifest.release, name): data for name, data in files.items()}
        )
        return Factory(path, sha256=digest)


def release(number: int, *, padding: int = 20_000) -> SimulatedRelease:
    """Release ``number``; ``padding`` bytes make its download take several pieces."""
    random = np.random.default_rng(number)
    weights = random.normal(0, 1, (INPUTS, OUTPUTS)).astype(np.float32)
    data = _model(weights, random.bytes(padding))
    examples = random.normal(0, 1, (4, INPUTS)).astype(np.float32)
    examples_file = golden.write({"x": examples}, {"y": examples @ weights})
    artifact = Artifact(
        target="onnx",
        precision="fp32",
        file=FILE,
        bytes=len(data),
        sha256=_sha256(data),
        operators=("MatMul",),
        float_operators=(),
        minimum_engine_version="1.0",
        peak_memory_bytes=None,
        measured=Measurement(accuracy=None, rows=0, latency_p50_us=None, machine="none", evaluated_with="numpy"),
        confidence=None,
        reference=None,
        golden=Golden(file=golden_file(FILE), bytes=len(examples_file), sha256=_sha256(examples_file), tolerance=1e-4),
    )
    manifest = Manifest(
        model=MODEL,
        release=number,
        version=f"{number}.0.0",
        created="2026-01-01T00:00:00Z",
        owner="simulation",
        contact="nobody@example.com",
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", INPUTS)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", OUTPUTS)),),
        labels=("a", "b", "c"),
        preprocessing=Preprocessing(in_graph="none", caller="none"),
        artifacts=(artifact,),
        requirements=Requirements(),
        hybrid=None,
        lineage=Lineage(
            dataset="random",
            dataset_sha256="0" * 64,
            data_version=None,
            collected=None,
            personal_data=False,
            consent_purpose=None,
        ),
    )
    return SimulatedRelease(manifest=manifest, files={FILE: data, golden_file(FILE): examples_file}, weights=weights)


def _model(weights: NDArray[np.float32], padding: bytes) -> bytes:
    """An ONNX ModelProto: y = x · weights. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto has the numbers."""
    node = _text(1, "x") + _text(1, "weights") + _text(2, "y") + _text(4, "MatMul")
    shape = b"".join(_number(1, size) for size in weights.shape)
    initializer = shape + _number(2, _FLOAT) + _text(8, "weights") + _field(9, weights.tobytes())
    graph = (
        _field(1, node)
        + _text(2, MODEL)
        + _field(5, initializer)
        + _field(11, _value("x", INPUTS))
        + _field(12, _value("y", OUTPUTS))
    )
    return _number(1, 9) + _field(6, padding.hex().encode()) + _field(7, graph) + _field(8, _number(2, 17))


def _value(name: str, columns: int) -> bytes:
    shape = _field(1, _text(2, "batch")) + _field(1, _number(1, columns))
    return _text(1, name) + _field(2, _field(1, _number(1, _FLOAT) + _field(2, shape)))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
