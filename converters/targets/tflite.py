"""TFLite: made by TensorFlow's converter with a batch of 1 and a ``serving_default`` signature that bears our names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from converters.errors import CheckFailed, ConversionFailed, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool, quiet
from converters.sources.base import BATCH
from converters.sources.tfgraph import FrozenGraph
from edge_runtime.bundle import TensorSpec

__all__ = [
    "MINIMUM_ENGINE_VERSION",
    "SIGNATURE",
    "Signature",
    "check_tflite",
    "convert_to_tflite",
    "operator_names",
    "refuse_dynamic",
    "tflite_operators",
    "tflite_signature",
]

MINIMUM_ENGINE_VERSION = "2.1.0"
SIGNATURE = "serving_default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The names by which a model is called, with the tensor that each stands for."""

    inputs: dict[str, int]
    outputs: dict[str, int]


def tflite_signature(interpreter: Any) -> Signature:
    """The signature ``serving_default`` of an allocated interpreter, or the model's only one; the names of the tensors
    where it has none. Raises `UnsupportedModel` for several signatures of other names."""
    signatures = interpreter.get_signature_list()
    if not signatures:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        return Signature(
            inputs={each["name"]: int(each["index"]) for each in inputs},
            outputs={each["name"]: int(each["index"]) for each in outputs},
        )
    if SIGNATURE not in signatures and len(signatures) > 1:
        raise UnsupportedModel(
            f"the TFLite model has the signatures {', '.join(sorted(signatures))}; keep one, or name one {SIGNATURE}"
        )
    runner = interpreter.get_signature_runner(SIGNATURE if SIGNATURE in signatures else next(iter(signatures)))
    return Signature(
        inputs={name: int(each["index"]) for name, each in runner.get_input_details().items()},
        outputs={name: int(each["index"]) for name, each in runner.get_output_details().items()},
    )


def convert_to_tflite(graph: FrozenGraph, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> bytes:
    """A float TFLite model for one example at a time, of builtin operators only. ``graph`` has its batch fixed to 1.

    Raises `UnsupportedModel` for other dynamic axes, `UnsupportedOperator` for an operator without a builtin kernel.
    """
    refuse_dynamic("tflite", inputs)
    tf = load_tool("tensorflow")

    def call(**tensors: Any) -> dict[str, Any]:
        results = graph.function()(*(tensors[name] for name in graph.inputs))
        return dict(zip(graph.outputs, results, strict=True))

    module = tf.Module()
    # One keyword argument for each input: their names become the signature's.
    signature = {
        spec.name: tf.TensorSpec([1 if size == BATCH else size for size in spec.shape], spec.dtype, name=spec.name)
        for spec in inputs
    }
    try:
        with quiet("TFLiteConverter"):
            module.call = tf.function(call, autograph=False)
            concrete = module.call.get_concrete_function(**signature)
            data = bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert())
    except ConversionFailed as error:
        raise _translated(error) from error
    check_tflite(data, graph.inputs, graph.outputs)
    return data


def refuse_dynamic(target: str, inputs: tuple[TensorSpec, ...]) -> None:
    """TFLite and Core ML models are made for one example of a fixed shape. Raises `UnsupportedModel` for others."""
    for spec in inputs:
        named = [size for index, size in enumerate(spec.shape) if isinstance(size, str) and (index or size != BATCH)]
        if named:
            raise UnsupportedModel(
                f"input {spec.name} has the dynamic axis {named[0]}, which {target} cannot hold here; "
                f"convert this model to onnx only, or give the axis a fixed size (in an ONNX file: "
                f"--axis {named[0]}=SIZE)"
            )


def check_tflite(data: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Load into the LiteRT interpreter and compare the signature's names. Raises `CheckFailed`."""
    litert = load_tool("ai_edge_litert.interpreter")
    try:
        with quiet("loading the TFLite model"):
            interpreter = litert.Interpreter(model_content=data, num_threads=1)
            interpreter.allocate_tensors()
            signature = tflite_signature(interpreter)
    except ConversionFailed as error:
        raise CheckFailed(f"the converted TFLite model does not load: {error}") from error
    if set(signature.inputs) != set(inputs) or set(signature.outputs) != set(outputs):
        raise CheckFailed(
            f"the TFLite model's signature has inputs {', '.join(signature.inputs)} and outputs "
            f"{', '.join(signature.outputs)}; it lacks inputs {inputs} or outputs {outputs}"
        )


def tflite_operators(data: bytes) -> tuple[str, ...]:
    """Operator types in all graphs, in order, as the flatbuffer stores them."""
    model = load_tool("ai_edge_litert.schema_py_generated").ModelT.InitFromPackedBuf(data, 0)
    codes = operator_names(model)
    return tuple(codes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators)


def operator_names(model: Any) -> list[str]:
    """The type behind each operator code of an unpacked model; a custom one under its own name."""
    builtin = load_tool("ai_edge_litert.schema_py_generated").BuiltinOperator
    names = {value: name for name, value in vars(builtin).items() if not name.startswith("_")}
    return [
        code.customCode.decode() if code.customCode else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]


def _translated(error: ConversionFailed) -> ConversionFailed | UnsupportedOperator:
    """TensorFlow names the operators without a builtin kernel in the middle of a long text."""
    match = re.search(r"(?:Flex|Custom) ops: ([\w, ]+)|'tf\.(\w+)' op is neither", str(error))
    if match is None:
        return error
    operator = (match[1] or match[2]).split(",")[0].strip()
    hint = "use gelu(approximate=True)" if operator == "Erf" else "replace the layer that makes it"
    return UnsupportedOperator(operator, f"TFLite has no builtin kernel for this TensorFlow operator; {hint}")
