"""A Keras 3 model, given as an object or as a ``.keras`` file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, ModelUnreadable, UnsupportedModel
from converters.quiet import load_tool, quiet
from converters.sources.activation import graph_of, last_activation
from converters.sources.base import BATCH, Kind
from converters.sources.keras_file import check_keras_file
from converters.sources.signed import Signed
from converters.sources.tensors import RawTensor, run_rows, sign
from converters.sources.tfgraph import FrozenGraph, freeze, static_sizes

__all__ = ["KerasSource"]

UNKNOWN = re.compile(r"Could not locate (class|function) '([^']+)'")  # how Keras says it, in a text of pages


class KerasSource(Signed):
    """A functional or sequential Keras model.

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
        self._signature = sign(
            self._name,
            [_raw(tensor, _input_name(tensor)) for tensor in graph.inputs],
            [_raw(tensor, each) for tensor, each in zip(graph.outputs, _output_names(graph), strict=True)],
            first_axis=first_axis,
        )
        self._function: Any = None

    @property
    def kind(self) -> Kind:
        return "keras"

    @property
    def parameters(self) -> int:
        return int(self.model.count_params())

    @property
    def activation(self) -> str | None:
        last = last_activation(self.model)
        return last and last[0]

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs, computed in inference mode."""
        if self._function is None:
            tf = load_tool("tensorflow")
            self._function = tf.function(self._call, reduce_retracing=True, autograph=False)
        return run_rows(lambda call: self._function(*call.values()), self._signature, inputs)

    def frozen(self, *, batch: int | None = None, lower_control_flow: bool = False) -> FrozenGraph:
        """The model as a simplified graph; ``batch`` fixes the first axis, None leaves it dynamic.

        Loops (recurrent layers) stay functions, or become TensorFlow 1 operators with ``lower_control_flow``.
        """
        tf = load_tool("tensorflow")
        batch = 1 if self.one_at_a_time else batch
        with quiet(f"freezing {self.name}"):
            arguments = [
                tf.TensorSpec(static_sizes(spec, batch), spec.dtype, name=f"input_{index}")
                for index, spec in enumerate(self.inputs)
            ]
            traced = tf.function(self._call, input_signature=arguments, autograph=False).get_concrete_function()
            return freeze(traced, self._signature, lower_control_flow=lower_control_flow)

    def _call(self, *tensors: Any) -> list[Any]:
        tf = load_tool("tensorflow")
        structured = tf.nest.pack_sequence_as(self._graph._inputs_struct, list(tensors))
        results = tf.nest.flatten(self.model(structured, training=False))
        # An identity each, so that no output is another's tensor or an input itself.
        return [tf.identity(tensor, name=f"output_{index}") for index, tensor in enumerate(results)]


def _load(path: Path, custom_objects: Mapping[str, Any] | None) -> Any:
    keras = load_tool("keras")
    check_keras_file(path)
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


def _raw(tensor: Any, name: str) -> RawTensor:
    sizes = tuple(None if size is None else int(size) for size in tensor.shape)
    return RawTensor(name=name, dtype=str(tensor.dtype), sizes=sizes)
