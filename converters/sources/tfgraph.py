"""A frozen TensorFlow graph: the one intermediate form from which every target is made, and its simplification.

Keras's one-dimensional layers reach TensorFlow as ``ExpandDims → Conv2D → Squeeze``, and batch normalization stays a
multiplication and an addition behind the ``Squeeze``. No converter sees through that for a dynamic batch, so the
graph would keep float operators between the convolutions, which costs speed and, after quantization, accuracy.
`simplify` moves each ``Squeeze`` down past elementwise operators, cancels it against the next ``ExpandDims``, and
folds constant multiplications and additions into the weights before them. Every rewrite is exact up to float rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converters.quiet import load_tool
from converters.sources.graph_editor import GraphEditor
from converters.sources.graph_rules import RULES
from converters.sources.tensors import Signature
from edge_runtime.bundle import TensorSpec

__all__ = ["FrozenGraph", "freeze", "simplify", "static_sizes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenGraph:
    """A GraphDef without variables. ``inputs`` and ``outputs`` are node names, equal to the model's tensor names."""

    graph_def: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def function(self) -> Any:
        """The graph as a TensorFlow ConcreteFunction."""
        tf = load_tool("tensorflow")
        wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(self.graph_def, name=""), [])
        tensors = [[wrapped.graph.get_tensor_by_name(f"{name}:0") for name in names] for names in self._names()]
        return wrapped.prune(*tensors)

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.inputs, self.outputs


def freeze(function: Any, signature: Signature, *, lower_control_flow: bool) -> FrozenGraph:
    """A TensorFlow ConcreteFunction as a simplified graph; its arguments and results are those of ``signature``.

    Loops (recurrent layers) stay functions, or become TensorFlow 1 operators with ``lower_control_flow``.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(
        function,
        lower_control_flow=lower_control_flow,
        aggressive_inlining=True,  # through calls with assertions too, as old layers have them
    )
    return simplify(_with_names(frozen, signature))


def static_sizes(spec: TensorSpec, batch: int | None) -> list[int | None]:
    """A spec's shape for TensorFlow: None for dynamic axes, ``batch`` for the first one if it is dynamic."""
    sizes: list[int | None] = [size if isinstance(size, int) else None for size in spec.shape]
    if batch is not None and sizes and sizes[0] is None:
        sizes[0] = batch
    return sizes


def _with_names(frozen: Any, signature: Signature) -> FrozenGraph:
    """The graph inside a new one whose placeholders and result nodes bear the model's own tensor names."""
    tf = load_tool("tensorflow")
    with tf.Graph().as_default() as graph:
        placeholders = {
            old.name: tf.compat.v1.placeholder(old.dtype, old.shape, name=spec.name)
            for old, spec in zip(frozen.inputs, signature.inputs, strict=True)
        }
        results = tf.graph_util.import_graph_def(
            frozen.graph.as_graph_def(),
            input_map=placeholders,
            return_elements=[tensor.name for tensor in frozen.outputs],
            name="g",
        )
        for tensor, spec in zip(results, signature.outputs, strict=True):
            tf.identity(tensor, name=spec.name)
        graph_def = graph.as_graph_def()
    return FrozenGraph(
        graph_def=graph_def,
        inputs=tuple(spec.name for spec in signature.inputs),
        outputs=tuple(spec.name for spec in signature.outputs),
    )


def simplify(graph: FrozenGraph) -> FrozenGraph:
    """Fold constants and what surrounds the convolutions (see the module's text). Outputs keep their names."""
    tf = load_tool("tensorflow")
    from tf2onnx.tf_loader import tf_optimize

    with tf.Graph().as_default():
        folded = tf_optimize(
            [f"{name}:0" for name in graph.inputs], [f"{name}:0" for name in graph.outputs], graph.graph_def
        )
    editor = GraphEditor(folded, graph.inputs, graph.outputs)
    changed = True
    while changed:
        # A list, so that every rule sees every node in each round.
        changed = any([rule(editor, node) for node in list(editor.nodes.values()) for rule in RULES])  # noqa: C419
    pruned = tf.compat.v1.graph_util.extract_sub_graph(editor.graph_def(), [*graph.inputs, *graph.outputs])
    return FrozenGraph(graph_def=pruned, inputs=graph.inputs, outputs=graph.outputs)
