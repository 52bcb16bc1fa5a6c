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

__all__ = ["FrozenGraph", "simplify"]


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
