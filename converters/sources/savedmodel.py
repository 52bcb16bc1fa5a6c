"""A TensorFlow SavedModel: one signature of it, frozen.

It is loaded as a graph, without the Python objects that it describes: their classes may be gone, as those of old
optimizers are, and only the graph is converted. Its initialization is not run; what needs it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, ModelUnreadable, UnsupportedModel
from converters.quiet import load_tool, quiet
from converters.sources.activation import last_squashing
from converters.sources.base import BATCH, Kind
from converters.sources.files import read_model
from converters.sources.signed import Signed
from converters.sources.tensors import RawTensor, run_rows, sign
from converters.sources.tf_operators import fix_list_batch, reached, refuse_operators, with_own_functions
from converters.sources.tfgraph import FrozenGraph, freeze, static_sizes

__all__ = ["GRAPH_FILE", "SavedModelSource"]

GRAPH_FILE = "saved_model.pb"
DEFAULT_SIGNATURE = "serving_default"
SERVE = "serve"
VARIABLES = frozenset({"VarHandleOp", "Variable", "VariableV2"})


class SavedModelSource(Signed):
    """One signature of a SavedModel folder: ``serving_default``, or the only one, or the one that is named.

    Inputs and outputs bear the signature's names, in the order of those names. Raises `ModelUnreadable` for a folder
    that is none or damaged, `UnsupportedModel` for several signatures without a choice or a tensor of unknown rank,
    `UnsupportedOperator` for custom operators, tables, and what keeps state or reaches outside the model.
    """

    def __init__(
        self, folder: str | Path, *, signature: str | None = None, name: str | None = None, first_axis: str = BATCH
    ) -> None:
        self._folder = Path(folder)
        self._name = name or self._folder.resolve().name
        graph = _read(self._folder)
        self._chosen = _signature(self._folder, graph, signature)
        self._inputs = sorted(self._chosen.inputs, key=_natural)
        self._outputs = sorted(self._chosen.outputs, key=_natural)
        self._signature = sign(
            self._name,
            [_raw(each, self._chosen.inputs[each]) for each in self._inputs],
            [_raw(each, self._chosen.outputs[each]) for each in self._outputs],
            first_axis=first_axis,
        )
        results = [self._chosen.outputs[each].name for each in self._outputs]
        used = list(reached(graph.graph_def, results))
        restoring = reached(graph.graph_def, [graph.saver_def.restore_op_name])
        with quiet(f"checking {self._folder}"):
            from tensorflow.python.framework import op_def_registry

            refuse_operators(self._name, (*used, *restoring), op_def_registry.get)
        self._variables = sum(_elements(node.attr["shape"].shape) for node in used if node.op in VARIABLES)
        self._constants = _without_variables(self._folder, results)

    @property
    def kind(self) -> Kind:
        return "savedmodel"

    @property
    def parameters(self) -> int:
        """Elements of the variables that the signature reads; of its float constants where it was frozen before."""
        return self._variables or sum(
            _elements(node.attr["value"].tensor.tensor_shape)
            for node in reached(self._constants, [self._chosen.outputs[each].name for each in self._outputs])
            if node.op == "Const" and node.attr["value"].tensor.tensor_shape.dim and _is_float(node)
        )

    @cached_property
    def activation(self) -> str | None:
        nodes = {node.name: node for node in self.frozen().graph_def.node}

        def producer(tensor: str) -> tuple[str, str] | None:
            node = nodes.get(tensor.split(":")[0])
            return (node.op, node.input[0]) if node is not None and node.input else None

        return last_squashing(self.outputs[0].name, producer)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs, computed by the graph as it was saved, before any simplification."""
        tf = load_tool("tensorflow")

        def call(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.asarray(each) for each in self._function(*(tf.constant(array) for array in arrays.values()))]

        return run_rows(call, self._signature, inputs)

    def frozen(self, *, batch: int | None = None, lower_control_flow: bool = False) -> FrozenGraph:
        """The model as a simplified graph; ``batch`` fixes the first axis, None leaves it dynamic.

        Loops (recurrent layers) stay functions, or become TensorFlow 1 operators with ``lower_control_flow``.
        """
        with quiet(f"freezing {self.name}"):
            return freeze(self._wrapped(batch), self._signature, lower_control_flow=lower_control_flow)

    @cached_property
    def _function(self) -> Any:
        return self._wrapped(None)

    def _wrapped(self, batch: int | None) -> Any:
        """The graph as a ConcreteFunction of our inputs in their order."""
        tf = load_tool("tensorflow")
        ends = [self._chosen.outputs[each].name for each in self._outputs]
        batch = 1 if self.one_at_a_time else batch
        graph_def = with_own_functions(self._constants)
        if batch is not None:
            fix_list_batch(graph_def, batch)

        def call(*tensors: Any) -> list[Any]:
            given = {self._chosen.inputs[each].name: tensor for each, tensor in zip(self._inputs, tensors, strict=True)}
            results = tf.graph_util.import_graph_def(graph_def, input_map=given, return_elements=ends, name="")
            # An identity each, so that no output is another's tensor or an input itself.
            return [tf.identity(tensor) for tensor in results]

        arguments = [tf.TensorSpec(static_sizes(spec, batch), spec.dtype) for spec in self.inputs]
        return tf.compat.v1.wrap_function(call, arguments)


def _read(folder: Path) -> Any:
    """The MetaGraph for serving."""
    if not (folder / GRAPH_FILE).is_file():
        raise ModelUnreadable(
            f"{folder} is not a SavedModel: it holds no {GRAPH_FILE}; export with model.export(folder) or "
            "tf.saved_model.save(model, folder)"
        )
    data = read_model(folder / GRAPH_FILE)
    load_tool("tensorflow")
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString(data)
    except DecodeError as error:
        raise ModelUnreadable(f"{folder / GRAPH_FILE} is damaged: {error}") from error
    for graph in saved.meta_graphs:
        if SERVE in graph.meta_info_def.tags:
            return graph
    found = sorted({tag for graph in saved.meta_graphs for tag in graph.meta_info_def.tags})
    raise UnsupportedModel(f"{folder} holds no graph for serving (tag {SERVE}), only {', '.join(found) or 'none'}")


def _signature(folder: Path, graph: Any, wanted: str | None) -> Any:
    usable = {
        key: each
        for key, each in graph.signature_def.items()
        if not key.startswith("__") and each.inputs and each.outputs
    }
    names = ", ".join(sorted(usable)) or "none"
    if wanted is not None:
        if wanted not in usable:
            raise UnsupportedModel(f"{folder} has no signature {wanted!r}; it has {names}")
        return usable[wanted]
    if DEFAULT_SIGNATURE in usable:
        return usable[DEFAULT_SIGNATURE]
    if len(usable) != 1:
        raise UnsupportedModel(
            f"{folder} has {len(usable)} signatures with inputs and outputs ({names}); name one: "
            "SavedModelSource(folder, signature=...), or save the model with signatures={'serving_default': ...}"
        )
    return next(iter(usable.values()))


def _without_variables(folder: Path, results: list[str]) -> Any:
    """The GraphDef that computes ``results``, with the restored variables as constants."""
    tf = load_tool("tensorflow")
    try:
        with quiet(f"loading {folder}"):
            from tensorflow.python.framework import convert_to_constants
            from tensorflow.python.saved_model.loader_impl import SavedModelLoader

            loader = SavedModelLoader(str(folder))
            graph = tf.Graph()
            with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
                saver, _ = loader.load_graph(graph, [SERVE])
                loader.restore_variables(session, saver)
                nodes = list(dict.fromkeys(name.split(":")[0] for name in results))
                return convert_to_constants.convert_variables_to_constants_from_session_graph(
                    session, graph.as_graph_def(), nodes
                )
    except ConversionFailed as error:
        raise ModelUnreadable(f"{folder} is damaged, or was saved by another version: {error}") from error


def _raw(name: str, info: Any) -> RawTensor:
    tf = load_tool("tensorflow")
    if info.WhichOneof("encoding") != "name":
        raise UnsupportedModel(f"tensor {name} is sparse or composite; give the model plain tensors")
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(int(dim.size) if dim.size >= 0 else None for dim in shape.dim)
    return RawTensor(name=name, dtype=tf.as_dtype(info.dtype).name, sizes=sizes)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``output_2`` before ``output_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _elements(shape: Any) -> int:
    return int(np.prod([max(dim.size, 0) for dim in shape.dim], dtype=np.int64))


def _is_float(node: Any) -> bool:
    return bool(load_tool("tensorflow").as_dtype(node.attr["dtype"].type).is_floating)
