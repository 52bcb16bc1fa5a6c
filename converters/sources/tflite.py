"""A finished ``.tflite`` file: taken as it is, or asked for answers as a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, ModelUnreadable, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool, quiet
from converters.sources.activation import last_squashing
from converters.sources.base import BATCH, Kind
from converters.sources.files import read_model
from converters.sources.precision import tflite_precision
from converters.sources.signed import Signed
from converters.sources.tensors import RawTensor, run_rows, sign

__all__ = ["TfliteSource"]

MAGIC = b"TFL3"
DEFAULT_SIGNATURE = "serving_default"  # the one whose names a device uses; without it, tensors have their own
WEIGHT_TYPES = ("FLOAT32", "FLOAT16", "INT8", "UINT8", "INT4")


class TfliteSource(Signed):
    """A TFLite model of builtin operators, from its bytes.

    ``data`` is the file, ``precision`` what its weights are stored in. Tensors keep their dtypes: those of a fully
    quantized model are int8 or uint8, and ``quantization`` gives (scale, zero point) of each, ``real = scale × (value −
    zero point)``. A model with variables is ``stateful``: rows are then the consecutive steps of one stream, which
    starts anew with every call of `predict`.

    Raises `ModelUnreadable` for a damaged file or one that refers to others, `UnsupportedOperator` for custom and
    TensorFlow (Flex) operators, `UnsupportedModel` for several signatures of which none is ``serving_default``.
    """

    def __init__(self, path: str | Path, *, name: str | None = None, first_axis: str = BATCH) -> None:
        path = Path(path)
        self._name = name or path.stem
        self.data = read_model(path)
        if self.data[4:8] != MAGIC:
            raise ModelUnreadable(f"{path} is not a TFLite file")
        self._model = _parsed(path, self.data)
        interpreter = self._interpreter(path)
        signatures = interpreter.get_signature_list()
        if len(signatures) > 1 and DEFAULT_SIGNATURE not in signatures:
            raise UnsupportedModel(
                f"{path} has the signatures {', '.join(sorted(signatures))}, and a device calls {DEFAULT_SIGNATURE}; "
                "convert the model again with that one signature"
            )
        self._inputs, self._outputs = _details(interpreter, DEFAULT_SIGNATURE in signatures)
        self._signature = sign(
            str(path),
            [_raw(name, detail) for name, detail in self._inputs.items()],
            [_raw(name, detail) for name, detail in self._outputs.items()],
            first_axis=first_axis,
        )

    @property
    def kind(self) -> Kind:
        return "tflite"

    @cached_property
    def parameters(self) -> int:
        """Elements of its constant tensors of floats or small integers."""
        schema = load_tool("ai_edge_litert.schema_py_generated")
        weights = {vars(schema.TensorType)[name] for name in WEIGHT_TYPES}
        return sum(
            int(np.prod(tensor.shape, dtype=np.int64))
            for graph in self._model.subgraphs
            for tensor in graph.tensors
            if tensor.type in weights
            and tensor.shape is not None
            and self._model.buffers[tensor.buffer].data is not None
        )

    @cached_property
    def precision(self) -> str:
        return tflite_precision(self._model)

    @property
    def quantization(self) -> Mapping[str, tuple[float, int]]:
        """(scale, zero point) of every quantized input and output, by name."""
        found = {name: each["quantization"] for name, each in (self._inputs | self._outputs).items()}
        return MappingProxyType({name: (float(s), int(z)) for name, (s, z) in found.items() if s})

    @property
    def stateful(self) -> bool:
        return "VAR_HANDLE" in self.operators or any(
            tensor.isVariable for graph in self._model.subgraphs for tensor in graph.tensors
        )

    @property
    def operators(self) -> tuple[str, ...]:
        """Operator types in the main graph, in order."""
        return tuple(_kind(self._model, operator) for operator in self._model.subgraphs[0].operators or ())

    @property
    def activation(self) -> str | None:
        graph = self._model.subgraphs[0]
        makers = {int(index): operator for operator in graph.operators or () for index in operator.outputs}

        def producer(tensor: str) -> tuple[str, str] | None:
            operator = makers.get(int(tensor))
            if operator is None or len(operator.inputs) == 0:
                return None
            return _kind(self._model, operator), str(int(operator.inputs[0]))

        return last_squashing(str(self._outputs[self.outputs[0].name]["index"]), producer)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs, by LiteRT with the kernels that a device uses, one row at a time, in order."""
        interpreter = self._interpreter(Path(self.name), as_on_device=True)
        shapes = {name: tuple(detail["shape"]) for name, detail in self._inputs.items()}

        def call(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
            for name, array in arrays.items():
                if shapes[name] != array.shape:
                    interpreter.resize_tensor_input(self._inputs[name]["index"], array.shape)
            if any(shapes[name] != array.shape for name, array in arrays.items()):
                interpreter.allocate_tensors()
                shapes.update({name: array.shape for name, array in arrays.items()})
            for name, array in arrays.items():
                interpreter.set_tensor(self._inputs[name]["index"], array)
            interpreter.invoke()
            return [interpreter.get_tensor(self._outputs[spec.name]["index"]) for spec in self.outputs]

        with quiet(f"running {self.name}"):
            return run_rows(call, self._signature, inputs, chunk=1)

    def _interpreter(self, path: Path, *, as_on_device: bool = False) -> Any:
        """Always of bytes: LiteRT's CompiledModel was seen to crash, hang or take 13 GB on a truncated file. The
        default delegate (XNNPACK), whose kernels round in their own way, only where answers are wanted."""
        litert = load_tool("ai_edge_litert.interpreter")
        try:
            with quiet("loading into LiteRT"):
                interpreter = litert.Interpreter(
                    model_content=self.data,
                    num_threads=1,
                    experimental_op_resolver_type=litert.OpResolverType.AUTO
                    if as_on_device
                    else litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                )
                interpreter.allocate_tensors()
                return interpreter
        except ConversionFailed as error:
            raise ModelUnreadable(f"{path} is not a TFLite model that LiteRT can load: {error}") from error


def _parsed(path: Path, data: bytes) -> Any:
    """The model as LiteRT's schema reads it, without what a device could not run."""
    schema = load_tool("ai_edge_litert.schema_py_generated")
    try:
        with quiet(f"reading {path}"):
            model = schema.ModelT.InitFromPackedBuf(data, 0)
    except ConversionFailed as error:
        raise ModelUnreadable(f"{path} is damaged: {error}") from error
    if not model.subgraphs or not model.operatorCodes or not model.buffers:
        raise ModelUnreadable(f"{path} is damaged: it holds no graph")
    if getattr(model, "externalBufferGroups", None) or getattr(model, "externalBuffers", None):
        raise ModelUnreadable(f"{path} keeps weights in another file; save them inside it")
    for code in model.operatorCodes:
        if code.customCode is not None:
            operator = code.customCode.decode(errors="replace")
            way = (
                "it needs TensorFlow on the device; convert with builtin operators only"
                if operator.startswith("Flex")
                else "no device here has its code; replace the layer that makes it"
            )
            raise UnsupportedOperator(operator, f"{path}: a custom operator: {way}")
    return model


def _details(interpreter: Any, signed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Details of inputs and outputs of the main graph by name, in its order."""
    named: dict[int, str] = {}
    if signed:
        runner = interpreter.get_signature_runner(DEFAULT_SIGNATURE)
        for details in (runner.get_input_details(), runner.get_output_details()):
            named |= {detail["index"]: name for name, detail in details.items()}
    groups = [
        {named.get(detail["index"], detail["name"]): detail for detail in details}
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    ]
    return groups[0], groups[1]


def _raw(name: str, detail: Any) -> RawTensor:
    signature = detail.get("shape_signature")
    sizes = detail["shape"] if signature is None or len(signature) == 0 else signature
    return RawTensor(
        name=name,
        dtype=np.dtype(detail["dtype"]).name,
        sizes=tuple(int(size) if size >= 0 else None for size in sizes),
    )


def _kind(model: Any, operator: Any) -> str:
    schema = load_tool("ai_edge_litert.schema_py_generated")
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next(name for name, value in vars(schema.BuiltinOperator).items() if value == number)
