"""An ONNX file: whatever exporter wrote it, one self-contained model of standard operators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, ModelUnreadable, UnsupportedModel
from converters.onnx_file import opset_of
from converters.quiet import load_tool, quiet
from converters.sources.activation import last_squashing
from converters.sources.base import BATCH, Kind
from converters.sources.onnx_axes import with_axes
from converters.sources.onnx_untrusted import load_untrusted, tensors_of
from converters.sources.precision import onnx_precision
from converters.sources.signed import Signed
from converters.sources.tensors import DTYPES, RawTensor, run_rows, sign

__all__ = ["OnnxSource"]

WEIGHT_TYPES = frozenset({"float32", "float16", "bfloat16", "double", "float64", "int8", "uint8", "int4", "uint4"})


class OnnxSource(Signed):
    """An ``.onnx`` file with its external data, if it has some, beside it or in a folder below.

    ``model_bytes`` is the whole model in one protobuf, ``opset`` the version of the standard operators that it is
    written in, ``precision`` what its weights are stored in. Outputs are in the file's order, but that integers ahead
    of floats (the labels that scikit-learn's classifiers give beside their probabilities) go last. ``axes`` gives
    dynamic axes of the inputs a size, by the name in the file or ``<input>_<axis>``.

    Raises `ModelUnreadable`, `UnsupportedOperator` for custom domains, and `UnsupportedModel` for a graph without
    inputs, for sequences, maps and texts, and for tensors without a shape.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        first_axis: str = BATCH,
        axes: Mapping[str, int] | None = None,
    ) -> None:
        path = Path(path)
        self._name = name or path.stem
        self.model, self.model_bytes = load_untrusted(path)
        if axes:
            self.model = with_axes(self.model, axes, str(path))
            self.model_bytes = self.model.SerializeToString(deterministic=True)
        self.opset = opset_of(self.model)
        session = self._session
        floats_first = sorted(session.get_outputs(), key=lambda each: "int" in each.type or "bool" in each.type)
        shown = {value.name: value for value in (*self.model.graph.input, *self.model.graph.output)}
        self._signature = sign(
            str(path),
            [_raw(path, each, shown[each.name]) for each in session.get_inputs()],
            [_raw(path, each, shown[each.name]) for each in floats_first],
            first_axis=first_axis,
        )

    @property
    def kind(self) -> Kind:
        return "onnx"

    @property
    def parameters(self) -> int:
        """Elements of its constant tensors of floats or small integers, in branches and loops too."""
        helper = load_tool("onnx").helper
        known = {number: _dtype(helper, number) for number in {each.data_type for each in tensors_of(self.model)}}
        return sum(
            int(np.prod(each.dims, dtype=np.int64))
            for each in tensors_of(self.model)
            if known[each.data_type] in WEIGHT_TYPES
        )

    @property
    def precision(self) -> str:
        return onnx_precision(self.model)

    @property
    def activation(self) -> str | None:
        makers = {name: node for node in self.model.graph.node for name in node.output}

        def producer(tensor: str) -> tuple[str, str] | None:
            node = makers.get(tensor)
            return (node.op_type, node.input[0]) if node is not None and node.input else None

        return last_squashing(self.outputs[0].name, producer)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs, by ONNX Runtime without graph optimizations, on one thread."""
        names = [spec.name for spec in self.outputs]
        with quiet(f"running {self.name}"):
            return run_rows(lambda call: self._session.run(names, call), self._signature, inputs)

    @cached_property
    def _session(self) -> Any:
        runtime = load_tool("onnxruntime")
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is raised
        options.add_session_config_entry("session.x64quantprecision", "1")  # x86 without VNNI saturates otherwise
        try:
            with quiet("loading into ONNX Runtime"):  # from bytes, so that it cannot reach for other files
                return runtime.InferenceSession(self.model_bytes, options, providers=["CPUExecutionProvider"])
        except ConversionFailed as error:
            raise ModelUnreadable(f"{self.name} is not a valid ONNX model: {error}") from error


def _raw(path: Path, argument: Any, value: Any) -> RawTensor:
    """``argument`` is ONNX Runtime's view of a tensor, its inferred shape included; ``value`` the file's own."""
    name, kind = str(argument.name), str(argument.type)
    if not kind.startswith("tensor("):
        raise UnsupportedModel(
            f"{path}: {name} is a {kind}, not a tensor. If scikit-learn's converter wrote the file, convert again with "
            "skl2onnx.to_onnx(..., options={'zipmap': False}), or give the estimator itself"
        )
    element = kind.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(element, element)
    if dtype == "string" or dtype not in (*DTYPES, "float64"):
        raise UnsupportedModel(
            f"{path}: tensor {name} holds {element} elements; devices exchange {', '.join(DTYPES)}. Take it out of the "
            "model's inputs and outputs (onnx.utils.extract_model keeps the others)"
        )
    stated = value.type.tensor_type.HasField("shape")
    sizes = tuple(size if isinstance(size, int | str) else None for size in argument.shape)
    return RawTensor(name=name, dtype=dtype, sizes=sizes if sizes or stated else None)


def _dtype(helper: Any, number: int) -> str:
    try:
        return str(helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, ValueError):
        return "unknown"
