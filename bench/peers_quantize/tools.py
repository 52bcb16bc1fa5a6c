"""The tools' own defaults, as their documentation shows them: float file and calibration rows in, quantized file out.

`python -m bench.peers_quantize.tools TOOL SOURCE FLOAT CALIBRATION.npz OUT`; what goes wrong ends the process with the
tool's own words last on standard error. SOURCE is the trained model, FLOAT our fp32 artifact of the tool's target.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["TOOLS", "Rows", "Tool"]

Rows = list[dict[str, np.ndarray]]  # one dictionary of inputs for each example, each with the model's own rank
Make = Callable[[Path, Path, Rows], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """``kinds`` are the kinds of source that it can start from; None: it starts from the float file."""

    target: str
    make: Make
    precision: str = "int8"
    kinds: tuple[str, ...] | None = None


def onnxruntime_defaults(source: Path, model: Path, rows: Rows) -> bytes:
    """`quantize_static` with nothing but a data reader: QDQ, per tensor, min and max."""
    return _onnxruntime(model, rows)


def onnxruntime_per_channel(source: Path, model: Path, rows: Rows) -> bytes:
    """The same with weights per channel, after the preprocessing that its documentation recommends."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(model, prepared)
        except Exception:  # noqa: BLE001 - the tool raises no other class where its symbolic inference gives up
            quant_pre_process(model, prepared, skip_symbolic_shape=True)  # the way around that it documents
        return _onnxruntime(prepared, rows, per_channel=True)


def _onnxruntime(model: Path, rows: Rows, **options: Any) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(rows)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "quantized.onnx"
        quantize_static(model, out, Reader(), **options)
        return out.read_bytes()


def tflite_converter(source: Path, model: Path, rows: Rows) -> bytes:
    """Post-training integer quantization: `Optimize.DEFAULT`, a representative dataset, integer kernels only."""
    import tensorflow as tf

    if source.suffix == ".keras":
        import keras

        converter = tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(source, compile=False))
    else:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(source))

    def examples() -> Iterator[dict[str, np.ndarray] | list[np.ndarray]]:
        for row in rows:
            yield row if source.is_dir() else list(row.values())

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


def ai_edge_quantizer(source: Path, model: Path, rows: Rows) -> bytes:
    """`recipe.static_wi8_ai8()` over the whole graph, with the tool's own calibration."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    data = model.read_bytes()
    signature = next(iter(Interpreter(model_content=data).get_signature_list()))
    tool = quantizer.Quantizer(bytearray(data), recipe.static_wi8_ai8())
    statistics = tool.calibrate({signature: rows})
    return bytes(tool.quantize(statistics).quantized_model)


def coreml_weights(source: Path, model: Path, rows: Rows) -> bytes:
    """`linear_quantize_weights` with a global symmetric configuration and its default threshold: a zipped package."""
    import coremltools as ct
    from coremltools.optimize import coreml as optimize

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(model) as archive:
            archive.extractall(folder)
        (package,) = Path(folder).glob("*.mlpackage")
        configuration = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig(mode="linear_symmetric"))
        quantized = optimize.linear_quantize_weights(
            ct.models.MLModel(str(package), skip_model_load=True), configuration
        )
        out = Path(folder) / "quantized.mlpackage"
        quantized.save(str(out))
        packed = Path(folder) / "quantized.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(out.rglob("*")):
                archive.write(file, file.relative_to(folder))
        return packed.read_bytes()


TOOLS = {
    "onnxruntime quantize_static": Tool(target="onnx", make=onnxruntime_defaults),
    "onnxruntime quantize_static per channel": Tool(target="onnx", make=onnxruntime_per_channel),
    "TFLiteConverter full integer": Tool(target="tflite", make=tflite_converter, kinds=("keras", "savedmodel")),
    "ai-edge-quantizer static_wi8_ai8": Tool(target="tflite", make=ai_edge_quantizer),
    "coremltools linear_quantize_weights": Tool(target="coreml", make=coreml_weights, precision="int8-weights"),
}


def _rows(calibration: Path, batched: bool) -> Rows:
    from converters.data import load_dataset

    data = load_dataset(calibration)
    return [
        {name: array[row : row + 1] if batched else np.asarray(array[row]) for name, array in data.inputs.items()}
        for row in range(data.rows)
    ]


def main(tool: str, source: str, model: str, calibration: str, batched: str, out: str) -> None:
    Path(out).write_bytes(TOOLS[tool].make(Path(source), Path(model), _rows(Path(calibration), batched == "batched")))


if __name__ == "__main__":
    main(*sys.argv[1:])
