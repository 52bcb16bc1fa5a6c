from __future__ import annotations

import platform
from pathlib import Path

import pytest

from converters.errors import DataUnreadable
from converters.installed import versions_used
from converters.lineage import dvc_of
from converters.quantize.found import Tried
from converters.report import Row
from converters.routes import ROUTES
from converters.sources.base import Kind
from edge_runtime.bundle.manifest import Precision, Target

DVC = """
outs:
- md5: 6f1d0c3f3a7c
  size: 120
  hash: md5
  path: train.npz
"""


def test_the_dvc_file_beside_the_data_is_part_of_the_lineage(tmp_path: Path) -> None:
    (tmp_path / "train.npz.dvc").write_text(DVC)
    assert dvc_of([tmp_path / "train.npz", tmp_path / "model.keras"]) == "md5:6f1d0c3f3a7c train.npz"
    assert dvc_of([tmp_path / "other.npz"]) is None


@pytest.mark.parametrize(
    "text", ["outs: 3", "- 1", "outs:\n- path: train.npz", "{", "!!python/object/apply:os.abort []"]
)
def test_a_dvc_file_that_says_nothing_of_the_data_is_an_error_and_not_silence(text: str, tmp_path: Path) -> None:
    (tmp_path / "train.npz.dvc").write_text(text)
    with pytest.raises(DataUnreadable, match=r"train\.npz\.dvc is no readable \.dvc file"):
        dvc_of([tmp_path / "train.npz"])


def made(kind: Kind, target: Target, *, precision: Precision = "fp32") -> Row:
    """A row as it is after all stages."""
    tools = next(route.tools for route in ROUTES if (route.source, route.target) == (kind, target))
    tried = Tried(precision=precision, recipe=None, kept=(), drop=0.0, error=0.0, weight_share=0.0, bytes=1,
                  outcome="holds")  # fmt: skip
    candidates = () if precision == "fp32" else (tried,)
    return Row(
        target=target, asked=precision, precision=precision, status="ok", bytes=1, tools=tools, candidates=candidates
    )


TF = "tensorflow-cpu"  # as it is called in the names below, wherever it is called otherwise


@pytest.mark.parametrize(
    ("kind", "rows", "packages"),
    [
        ("keras", [made("keras", "onnx")], {"keras", TF, "onnx", "onnxruntime", "tf2onnx"}),
        ("keras", [made("keras", "tflite")], {"keras", TF, "ai-edge-litert"}),
        ("keras", [made("keras", "tflite", precision="int8")],
         {"keras", TF, "ai-edge-litert", "ai-edge-quantizer"}),
        ("keras", [made("keras", "coreml")], {"keras", TF, "coremltools"}),
        ("savedmodel", [made("savedmodel", "onnx", precision="int8")], {TF, "onnx", "onnxruntime", "tf2onnx"}),
        ("onnx", [made("onnx", "coreml")], {"onnx", "onnxruntime", "onnx2coreml", "coremltools"}),
        ("onnx", [made("onnx", "tflite")], {"onnx", "onnxruntime", "onnx2tf", "ai-edge-litert"}),
        ("torch", [made("torch", "onnx")], {"torch", "onnxscript", "onnx", "onnxruntime"}),
        ("torch", [made("torch", "tflite")], {"torch", "litert-torch", "litert-converter", "ai-edge-litert"}),
        ("sklearn", [made("sklearn", "onnx")], {"scikit-learn", "skl2onnx", "onnx", "onnxruntime"}),
        ("tflite", [made("tflite", "tflite")], {"ai-edge-litert"}),
        ("tflite", [Row(target="onnx", asked="int8", precision="int8", status="refused")], {"ai-edge-litert"}),
    ],
)  # fmt: skip
def test_only_what_a_run_used_is_among_its_versions(kind: Kind, rows: list[Row], packages: set[str]) -> None:
    found = versions_used(kind, rows)
    system = {"python", platform.system().lower(), "edgeship", "numpy"}
    assert {TF if name == "tensorflow" else name for name in found} == packages | system
    assert all(found.values())
    assert found["python"] == platform.python_version()
