"""A Keras 3 model, given as an object or as a ``.keras`` file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, ModelUnreadable, UnsupportedModel
from converters.quiet import load_tool, quiet
from converters.sources.activation import graph_of
from converters.sources.base import BATCH, is_batched
from converters.sources.tfgraph import FrozenGraph, simplify
from edge_runtime.bundle import TensorSpec

__all__ = ["KerasSource"]

UNKNOWN = re.compile(r"Could not locate (class|function) '([^']+)'")  # how Keras says it, in a text of pages
CHUNK = 512  # rows that go through the model at once


class KerasSource:
    """A functional or sequential Keras model whose first output holds the logits, not probabilities.

    ``first_axis`` names the models' dynamic first axis. ``batch``, the default, says that its entries are independent
    examples; any other name (``n``) says that one row of data is a whole input, for a model that looks at several
    windows together. A dictionary of outputs gives them its keys as names; otherwise layers' names are used.

    Raises `ModelUnreadable` for a file that is not a Keras model, `UnsupportedModel` for one without symbolic inputs:
    a subclass of `keras.Model`, or a `keras.Sequential` that is not built.
    """

    def __init__(
        self,
        model: Any,
        *,
        first_axis: str = BATCH,
        name: str | None = None,
        custom_objects: Mapping[str, Any] | None = None,
    ) -> None:
        keras = load_tool("keras")
        if keras.backend.backend() != "tensorflow":
            raise UnsupportedModel(
                f"Keras runs on its {keras.backend.backend()} backend here; conversion needs KERAS_BACKEND=tensorflow"
            )
        if isinstance(model, str | Path):
            model = _load(Path(model), custom_objects)
        if not isinstance(model, keras.Model):
            raise UnsupportedModel(f"{type(model).__name__} is not a keras.Model")
        graph = graph_of(model)
        if graph is None:
            raise UnsupportedModel(
                f"{model.name} is a keras.Sequential that is not built; put keras.Input(shape, name=...) first in it"
            )
        if not getattr(graph, "inputs", None) or not getattr(graph, "outputs", None):
            raise UnsupportedModel(
                f"{model.name} has no symbolic inputs; build it as keras.Model(inputs, outputs) and convert that"
            )
        self.model = model
        self._graph = graph
        self._name = name or str(model.name)
        self._inputs = tuple(_spec(tensor, _input_name(tensor), first_axis) for tensor in graph.inputs)
        self._outputs = tuple(
            _spec(tensor, each, first_axis) for tensor, each in zip(graph.outputs, _output_names(graph), strict=True)
        )
        names = [spec.name for spec in (*self._inputs, *self._outputs)]
        if len(set(names)) != len(names):
            raise UnsupportedModel(f"inputs and outputs need different names, not {', '.join(names)}")
        self._function: Any = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def parameters(self) -> int:
        return int(self.model.count_params())

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs, computed in inference mode."""
        if self._function is None:
            tf = load_tool("tensorflow")
            self._function = tf.function(self._call, reduce_retracing=True, autograph=False)
        arrays = [np.asarray(inputs[spec.name], dtype=spec.dtype) for spec in self._inputs]
        rows = len(arrays[0])
        if is_batched(self._inputs):
            parts = [self._function(*(a[start : start + CHUNK] for a in arrays)) for start in range(0, rows, CHUNK)]
            values = [np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(self._outputs))]
        else:
            parts = [self._function(*(array[row] for array in arrays)) for row in range(rows)]
            values = [np.stack([np.asarray(part[i]) for part in parts]) for i in range(len(self._outputs))]
        return {spec.name: value for spec, value in zip(self._outputs, values, strict=True)}

    def frozen(self, *, batch: int | None = None, lower_control_flow: bool = False) -> FrozenGraph:
        """The model as a simplified graph; ``batch`` fixes the first axis, None leaves it dynamic.

        Loops (recurrent layers) stay functions, or become TensorFlow 1 operators with ``lower_control_flow``.
        """
        tf = load_tool("tensorflow")
        with quiet(f"freezing {self.name}"):
            from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

            signature = [
                tf.TensorSpec(_static(spec, batch), spec.dtype, name=f"input_{index}")
                for index, spec in enumerate(self._inputs)
            ]
            traced = tf.function(self._call, input_signature=signature, autograph=False).get_concrete_function()
            frozen = convert_variables_to_constants_v2(traced, lower_control_flow=lower_control_flow)
            graph_def, inputs, outputs = self._with_our_names(frozen)
            return simplify(FrozenGraph(graph_def=graph_def, inputs=inputs, outputs=outputs))

    def _call(self, *tensors: Any) -> list[Any]:
        tf = load_tool("tensorflow")
        structured = tf.nest.pack_sequence_as(self._graph._inputs_struct, list(tensors))
        results = tf.nest.flatten(self.model(structured, training=False))
        # An identity each, so that no output is another's tensor or an input itself.
        return [tf.identity(tensor, name=f"output_{index}") for index, tensor in enumerate(results)]

    def _with_our_names(self, frozen: Any) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
        """The frozen graph inside a new one whose placeholders and result nodes bear the model's own tensor names."""
        tf = load_tool("tensorflow")
        with tf.Graph().as_default() as graph:
            placeholders = {
                old.name: tf.compat.v1.placeholder(old.dtype, old.shape, name=spec.name)
                for old, spec in zip(frozen.inputs, self._inputs, strict=True)
            }
            results = tf.graph_util.import_graph_def(
                frozen.graph.as_graph_def(),
                input_map=placeholders,
                return_elements=[tensor.name for tensor in frozen.outputs],
                name="g",
            )
            for tensor, spec in zip(results, self._outputs, strict=True):
                tf.identity(tensor, name=spec.name)
            graph_def = graph.as_graph_def()
        return graph_def, tuple(s.name for s in self._inputs), tuple(s.name for s in self._outputs)


def _load(path: Path, custom_objects: Mapping[str, Any] | None) -> Any:
    keras = load_tool("keras")
    if not path.is_file():
        raise ModelUnreadable(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ModelUnreadable(f"{path} is not a .keras file; save the model with model.save('name.keras')")
    try:
        with quiet(f"loading {path}"):
            return keras.models.load_model(path, custom_objects=dict(custom_objects or {}), compile=False)
    except ConversionFailed as error:
        unknown = UNKNOWN.search(str(error.__cause__))
        if unknown is None:
            raise ModelUnreadable(str(error)) from error
        kind, name = unknown.groups()
        raise ModelUnreadable(
            f"{path} uses the custom {kind} {name}, and a file does not hold its code; convert it from Python, with "
            f"KerasSource(path, custom_objects={{{name!r}: {name}}})"
        ) from error


def _input_name(tensor: Any) -> str:
    """The tensor's name, or its layer's where Keras made one up: such names count up, and no file keeps them."""
    name = str(tensor.name)
    return str(tensor._keras_history.operation.name) if name.startswith("keras_tensor") else name


def _output_names(graph: Any) -> list[str]:
    structure = graph._outputs_struct
    if isinstance(structure, dict):
        return sorted(structure)  # the order in which Keras flattens a dictionary
    return [str(name) for name in graph.output_names]


def _spec(tensor: Any, name: str, first_axis: str) -> TensorSpec:
    shape: list[int | str] = []
    for axis, size in enumerate(tensor.shape):
        if size is not None:
            shape.append(int(size))
        else:
            shape.append(first_axis if axis == 0 else f"{name}_{axis}")
    return TensorSpec(name=name, dtype=str(tensor.dtype), shape=tuple(shape))


def _static(spec: TensorSpec, batch: int | None) -> list[int | None]:
    sizes: list[int | None] = [size if isinstance(size, int) else None for size in spec.shape]
    if batch is not None and sizes and sizes[0] is None:
        sizes[0] = batch
    return sizes
