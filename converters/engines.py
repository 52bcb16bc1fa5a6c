"""Artifacts in their reference engines: ONNX Runtime, LiteRT, and the NumPy evaluator for Core ML.

`Variant` chooses kernels, so that the spread between them can be measured; the default is what a device uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.errors import CheckFailed, InvalidRequest
from converters.foreign.names import coreml_names
from converters.quiet import load_tool, quiet
from converters.sources.base import is_batched
from converters.sources.tensors import rows_of_a_call
from converters.targets.tflite import SIGNATURE
from edge_runtime.bundle import TensorSpec

__all__ = ["DEFAULT", "Engine", "Variant", "open_engine", "tensor_details", "variants"]

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """``optimized`` allows graph fusions and delegates, and on Core ML the rounding to fp16."""

    threads: int = 1
    optimized: bool = True


DEFAULT = Variant()


class Engine(Protocol):
    """``name`` says engine, version and threads. `run` answers rows; `caller` is one bare call, to be timed, or None
    where time here says nothing about a device."""

    name: str

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]: ...

    def caller(self, inputs: Arrays) -> Callable[[], Any] | None: ...


def variants() -> tuple[Variant, ...]:
    """Kernels that a device might use instead of the default ones.

    ONNX Runtime's saturating INT8 kernels are not among them: the device's backend switches them off, as `_OnnxEngine`
    does, and a tolerance that let them pass would let a broken model pass.
    """
    return Variant(threads=2), Variant(optimized=False)


def open_engine(
    target: str,
    data: bytes,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    variant: Variant = DEFAULT,
) -> Engine:
    """Load an artifact from its bytes."""
    kinds: dict[str, Callable[..., Engine]] = {"onnx": _OnnxEngine, "tflite": _TfliteEngine, "coreml": _CoremlEngine}
    if target not in kinds:
        raise InvalidRequest(f"no target {target!r}; there are {', '.join(kinds)}")
    return kinds[target](data, inputs, outputs, variant)


class _OnnxEngine:
    def __init__(
        self, data: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], variant: Variant
    ) -> None:
        runtime = load_tool("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = variant.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.x64quantprecision", "1")  # x86 without VNNI saturates otherwise
        if not variant.optimized:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        with quiet("loading into ONNX Runtime"):
            self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.name = f"onnxruntime {runtime.__version__}, {variant.threads} thread{'s' * (variant.threads > 1)}"
        self._outputs = [spec.name for spec in outputs]
        self._batched = is_batched(inputs)
        # Many files have their batch fixed to 1, whatever the specs call it.
        self._one_at_a_time = any(arg.shape[:1] == [1] for arg in self._session.get_inputs())

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        rows = len(next(iter(inputs.values())))
        join = np.concatenate if self._batched else np.stack
        step = 1 if self._one_at_a_time else rows_of_a_call(inputs)
        calls = (
            [{name: array[start : start + step] for name, array in inputs.items()} for start in range(0, rows, step)]
            if self._batched
            else [{name: array[row, ...] for name, array in inputs.items()} for row in range(rows)]
        )
        parts = [self._session.run(self._outputs, call) for call in calls]
        return {name: join([part[index] for part in parts]) for index, name in enumerate(self._outputs)}

    def caller(self, inputs: Arrays) -> Callable[[], Any]:
        one = {name: array[:1] if self._batched else array[0, ...] for name, array in inputs.items()}
        return lambda: self._session.run(self._outputs, one)


class _TfliteEngine:
    def __init__(
        self, data: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], variant: Variant
    ) -> None:
        litert = load_tool("ai_edge_litert.interpreter")
        kernels = litert.OpResolverType
        with quiet("loading into LiteRT"):
            self._interpreter = litert.Interpreter(
                model_content=data,
                num_threads=variant.threads,
                experimental_op_resolver_type=kernels.AUTO
                if variant.optimized
                else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
            given, made = tensor_details(self._interpreter)
        self._inputs = {spec.name: given[spec.name]["index"] for spec in inputs}
        self._outputs = {spec.name: made[spec.name]["index"] for spec in outputs}
        self._batched = is_batched(inputs)
        threads = f"{variant.threads} thread{'s' * (variant.threads > 1)}"
        self.name = f"LiteRT {version('ai-edge-litert')}, {threads}"

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        rows = len(next(iter(inputs.values())))
        join = np.concatenate if self._batched else np.stack
        self._interpreter.reset_all_variables()  # the rows of a model that keeps a state are one stream, begun anew
        parts = [self._one(self._row(inputs, row)) for row in range(rows)]
        return {name: join([part[name] for part in parts]) for name in self._outputs}

    def caller(self, inputs: Arrays) -> Callable[[], Any]:
        one = self._row(inputs, 0)
        return lambda: self._one(one)

    def _row(self, inputs: Arrays, row: int) -> dict[str, np.ndarray]:
        return {name: array[row : row + 1] if self._batched else array[row, ...] for name, array in inputs.items()}

    def _one(self, inputs: Arrays) -> dict[str, np.ndarray]:
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, inputs[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


def tensor_details(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """LiteRT's details of inputs and outputs by name: those of the signature that devices use where it is there, else
    the tensors' own."""
    if SIGNATURE in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(SIGNATURE)
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    given, made = interpreter.get_input_details(), interpreter.get_output_details()
    return {detail["name"]: detail for detail in given}, {detail["name"]: detail for detail in made}


class _CoremlEngine:
    """Takes and gives the model's own names; in the package they are what `coreml_names` makes of them."""

    def __init__(
        self, data: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], variant: Variant
    ) -> None:
        self._reference = CoreMLReference(data, round_fp16=variant.optimized)
        names = coreml_names(spec.name for spec in (*inputs, *outputs))
        self._inputs = {names[spec.name]: spec.name for spec in inputs}
        self._outputs = {spec.name: names[spec.name] for spec in outputs}
        if set(self._reference.inputs) != set(self._inputs) or not set(self._outputs.values()) <= set(
            self._reference.outputs
        ):
            raise CheckFailed(
                f"the Core ML program takes {', '.join(self._reference.inputs)} and gives "
                f"{', '.join(self._reference.outputs)}, not {', '.join(self._inputs)} and "
                f"{', '.join(self._outputs.values())}"
            )
        self._batched = is_batched(inputs)
        self.name = f"{CoreMLReference.name} (numpy {np.__version__})"

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        # A batch of 1 is in the program's shapes, and every row keeps it.
        given = {
            theirs: inputs[ours][:, np.newaxis] if self._batched else inputs[ours]
            for theirs, ours in self._inputs.items()
        }
        results = self._reference.run(given)
        answers = {ours: results[theirs] for ours, theirs in self._outputs.items()}
        if not self._batched:
            return answers
        return {name: array.reshape(len(array), *array.shape[2:]) for name, array in answers.items()}

    def caller(self, inputs: Arrays) -> None:
        return None
