"""Tiny real models and releases: float32 window[batch, 20, 3] → float32 logits[batch, 4], one matrix product."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_runtime import Factory, golden
from edge_runtime.bundle import (
    MANIFEST_FILE,
    Artifact,
    Confidence,
    Feature,
    Golden,
    Hybrid,
    Lineage,
    Manifest,
    Measurement,
    Preprocessing,
    Reference,
    Requirements,
    TensorSpec,
    golden_file,
    target_path,
    write_bundle,
    write_manifest,
)

DATA = Path(__file__).parent.parent / "data"
LABELS = ("rest", "lift", "turn", "press")
WINDOW = TensorSpec(name="window", dtype="float32", shape=("batch", 20, 3), range=(-8.0, 8.0), unit="g")
LOGITS = TensorSpec(name="logits", dtype="float32", shape=("batch", 4))
CONTEXT = TensorSpec(name="context", dtype="float32", shape=("windows", 20, 3))


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The weights in the committed TFLite files for seed 0: float32[60, 4] and float32[4]."""
    random = np.random.default_rng(seed)
    return random.normal(0, 0.2, (60, 4)).astype(np.float32), random.normal(0, 0.2, 4).astype(np.float32)


def expected(windows: np.ndarray, seed: int = 0) -> np.ndarray:
    """float32[n, 20, 3] → the right float32[n, 4]."""
    matrix, bias = weights(seed)
    return windows.reshape(-1, 60) @ matrix + bias


def windows(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 20, 3)).astype(np.float32)


def onnx_model(
    seed: int = 0,
    *,
    operators: Sequence[Any] = (),
    last: str = "product",
    bias: np.ndarray | None = None,
    batch: str | int = "batch",
    input_name: str = "window",
    opsets: Sequence[Any] = (),
) -> onnx.ModelProto:
    """The tiny model; ``operators`` are further nodes, of which the one that writes ``logits`` reads ``last``."""
    matrix, own_bias = weights(seed)
    nodes = [
        helper.make_node("Flatten", [input_name], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], [last if operators else "logits"]),
        *operators,
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 20, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])],
        [
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(own_bias if bias is None else bias.astype(np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), *opsets], ir_version=9)


def onnx_bytes(seed: int = 0, **options: Any) -> bytes:
    return bytes(onnx_model(seed, **options).SerializeToString())


def nan_onnx_bytes(seed: int = 0) -> bytes:
    """Answers NaN for every window whose first class would lose: a fault that golden examples can miss."""
    return onnx_bytes(seed, operators=[helper.make_node("Sqrt", ["product"], ["logits"])])


def failing_onnx_bytes(seed: int = 0) -> bytes:
    """Loads well and fails in every run: it reads the 100th of four columns."""
    beyond = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 99])
    gather = [
        helper.make_node("Constant", [], ["indices"], value=beyond),
        helper.make_node("Gather", ["product", "indices"], ["logits"], axis=1),
    ]
    return onnx_bytes(seed, operators=gather)


def tflite_bytes(name: str = "dynamic") -> bytes:
    return (DATA / f"tiny-{name}.tflite").read_bytes()


def reference(seed: int = 1) -> Reference:
    """Six features: mean and standard deviation of each axis, with edges from random windows."""
    sample = windows(500, seed)
    features = []
    for reduce in ("mean", "std"):
        values = getattr(sample, reduce)(axis=1)
        for axis in range(3):
            edges = np.quantile(values[:, axis], np.linspace(0, 1, 17))
            features.append(
                Feature(
                    name=f"{reduce}-{axis}",
                    input="window",
                    reduce=reduce,  # type: ignore[arg-type]
                    index=axis,
                    edges=tuple(float(e) for e in edges),
                    shares=(0.0, *([1 / 16] * 16), 0.0, 0.0),
                )
            )
    return Reference(features=tuple(features), classes=(0.25,) * 4, confidence=(0.05,) * 20)


@dataclass(frozen=True)
class TinyRelease:
    """A manifest and its files by name."""

    manifest: Manifest
    files: dict[str, bytes]

    @property
    def artifact(self) -> Artifact:
        return self.manifest.artifacts[0]

    def factory(self, folder: Path) -> Factory:
        """A bundle of this release in ``folder``."""
        path = folder / f"{self.manifest.model}-{self.manifest.release}.bundle"
        files: dict[str, bytes] = {MANIFEST_FILE: write_manifest(self.manifest), **self.files}
        model, release = self.manifest.model, self.manifest.release
        digest = write_bundle(path, {target_path(model, release, name): data for name, data in files.items()})
        return Factory(path, sha256=digest)


def release(
    number: int = 1,
    *,
    model: str = "tiny",
    seed: int = 0,
    onnx_data: bytes | None = None,
    tflite_data: bytes | None = None,
    threshold: float = 0.0,
    temperature: float = 1.0,
    confidence: bool = True,
    score: Literal["msp", "probability"] = "msp",
    hybrid: bool = False,
    golden_count: int = 4,
    golden_outputs: np.ndarray | None = None,
    window: TensorSpec = WINDOW,
) -> TinyRelease:
    """A release with an ONNX artifact (and a TFLite one where ``tflite_data`` is given)."""
    given = {"onnx": onnx_bytes(seed) if onnx_data is None else onnx_data}
    if tflite_data is not None:
        given["tflite"] = tflite_data
    files: dict[str, bytes] = {}
    artifacts = []
    examples = windows(golden_count, 7)
    outputs = expected(examples, seed) if golden_outputs is None else golden_outputs
    for target, data in given.items():
        name = f"tiny-fp32.{target}"
        golden_data = golden.write({"window": examples}, {"logits": outputs})
        files[name] = data
        files[golden_file(name)] = golden_data
        artifacts.append(
            Artifact(
                target=target,  # type: ignore[arg-type]
                precision="fp32",
                file=name,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                operators=("Gemm",),
                float_operators=(),
                minimum_engine_version="1.0",
                peak_memory_bytes=None,
                measured=Measurement(
                    accuracy=None,
                    rows=100,
                    decision_agreement=1.0,  # they are checked against each other wherever they are used
                    latency_p50_us=None,
                    machine="test",
                    evaluated_with="numpy",
                ),
                confidence=Confidence(
                    score=score,
                    temperature=temperature,
                    threshold=threshold,
                    target_risk=None,
                    calibration_sha256="0" * 64,
                )
                if confidence
                else None,
                reference=reference(),
                golden=Golden(
                    file=golden_file(name),
                    bytes=len(golden_data),
                    sha256=hashlib.sha256(golden_data).hexdigest(),
                    tolerance=1e-4,
                ),
            )
        )
    manifest = Manifest(
        model=model,
        release=number,
        version=f"{number}.0.0",
        created="2026-11-20T23:00:00Z",
        owner="alice",
        contact="alice@example.com",
        inputs=(window,),
        outputs=(LOGITS,),
        labels=LABELS,
        preprocessing=Preprocessing(in_graph="none", caller="none"),
        artifacts=tuple(artifacts),
        requirements=Requirements(),
        hybrid=Hybrid(model="tiny-teacher", releases=(1,), inputs=(CONTEXT,)) if hybrid else None,
        lineage=Lineage(
            dataset="random",
            dataset_sha256="0" * 64,
            data_version=None,
            collected=None,
            personal_data=False,
            consent_purpose=None,
        ),
    )
    return TinyRelease(manifest, files)
