"""Models and runtimes that benches measure: made here, so that a bench needs no data and no converter."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from edge_runtime import EdgeRuntime, Factory, RoutingPolicy
from edge_runtime import golden as golden_files
from edge_runtime.bundle import (
    Artifact,
    Confidence,
    Feature,
    Golden,
    Lineage,
    Manifest,
    Measurement,
    Preprocessing,
    Reference,
    Requirements,
    TensorSpec,
    golden_file,
    pack_release,
)

SHAPE = (50, 20)  # of one input: 20 features, one for each position of the last axis
CLASSES = 10


def plain_session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def network(hidden: int) -> bytes:
    rng = np.random.default_rng(hidden)
    width = int(np.prod(SHAPE))
    weights = {
        "w1": rng.standard_normal((width, hidden)).astype(np.float32) / np.float32(np.sqrt(width)),
        "w2": rng.standard_normal((hidden, CLASSES)).astype(np.float32),
        "flat": np.array([-1, width], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def open_runtime(model: bytes, x: NDArray[np.float32], folder: Path) -> EdgeRuntime:
    """A real runtime on a real bundle of ``model``, telemetry and deferral on."""
    file = "bench.onnx"
    logits = plain_session(model).run(None, {"x": x[np.newaxis]})[0]
    examples = golden_files.write({"x": x[np.newaxis]}, {"logits": logits})
    (folder / file).write_bytes(model)
    (folder / golden_file(file)).write_bytes(examples)
    edges = tuple(np.linspace(-3.0, 3.0, 17).tolist())
    features = tuple(
        Feature(name=f"mean {i}", input="x", reduce="mean", index=i, edges=edges, shares=(1 / 19,) * 19)
        for i in range(SHAPE[-1])
    )
    artifact = Artifact(
        target="onnx",
        precision="fp32",
        file=file,
        bytes=len(model),
        sha256=hashlib.sha256(model).hexdigest(),
        operators=("MatMul", "Relu", "Reshape"),
        float_operators=(),
        minimum_engine_version="1.17",
        peak_memory_bytes=None,
        measured=Measurement(
            accuracy=None, rows=0, latency_p50_us=None, machine="this one", evaluated_with="onnxruntime"
        ),
        confidence=Confidence(
            score="msp", temperature=1.3, threshold=0.1, target_risk=None, calibration_sha256="0" * 64
        ),
        reference=Reference(features=features, classes=(1 / CLASSES,) * CLASSES, confidence=(1 / 20,) * 20),
        golden=Golden(
            file=golden_file(file),
            bytes=len(examples),
            sha256=hashlib.sha256(examples).hexdigest(),
            tolerance=0.001,
        ),
    )
    manifest = Manifest(
        model="bench",
        release=1,
        version="1",
        created="2026-01-01T00:00:00Z",
        owner="bench",
        contact="bench",
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", *SHAPE), range=(-10.0, 10.0)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", CLASSES)),),
        labels=tuple(f"class {i}" for i in range(CLASSES)),
        preprocessing=Preprocessing(in_graph="none", caller="none"),
        artifacts=(artifact,),
        requirements=Requirements(),
        hybrid=None,
        lineage=Lineage(
            dataset="random numbers",
            dataset_sha256="0" * 64,
            data_version=None,
            collected=None,
            personal_data=False,
            consent_purpose=None,
        ),
    )
    digest = pack_release(folder, manifest, folder / "bench.bundle")
    return EdgeRuntime.open(
        folder / "state",
        model="bench",
        factory=Factory(folder / "bench.bundle", sha256=digest),
        policy=RoutingPolicy(),
        engines=("onnx",),
        background=False,
    )
