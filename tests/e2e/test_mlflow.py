"""A conversion logged to MLflow, with the real package in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.errors import ToolMissing
from converters.mlflow_log import check_mlflow

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
COMMAND = "import sys; from converters.cli import main; sys.exit(main(sys.argv[1:]))"


def linear(path: Path) -> None:
    """A model of one matrix product, as an ONNX file."""
    weights = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ["batch", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("MatMul", ["row", "w"], ["logits"])], "g", [row], [logits], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.long
def test_a_run_is_logged_with_its_metrics_and_its_bundle(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    subprocess.run([UV, "pip", "install", "-q", "--target", packages, "mlflow-skinny==3.17.2"], check=True)
    linear(tmp_path / "linear.onnx")
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.savez(tmp_path / "e.npz", row=rows, label=rows[:, :3].argmax(axis=1))
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[-1:], str(packages)]),
        "MLFLOW_TRACKING_URI": (tmp_path / "runs").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    line = ["run", "linear.onnx", *["--name", "linear", "--release", "1", "--evaluation", "e.npz", "--targets", "onnx"]]
    line += ["--precision", "fp32", "--no-peak-memory", "--mlflow", "experiment", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *line], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    logged = {path.name for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert {"onnx.fp32.accuracy", "onnx.fp32.status", "report.json", "linear-1.bundle"} <= logged


def test_without_the_package_nothing_is_done_before_the_error() -> None:
    with pytest.raises(ToolMissing, match="--mlflow needs the package mlflow"):
        check_mlflow()
