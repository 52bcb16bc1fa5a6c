"""What an ExportedProgram takes and gives: names, dtypes, shapes, parameters, and the last activation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from _program import load, tensors
from _protocol import answer

SQUASHING = {"softmax": "softmax", "_softmax": "softmax", "_safe_softmax": "softmax", "sigmoid": "sigmoid"}
# Operators that keep the values as they are.
UNCHANGING = {
    *("alias", "clone", "contiguous", "detach", "dropout", "flatten", "reshape", "squeeze", "to", "unsqueeze", "view"),
    *("_to_copy", "_unsafe_view"),
}


def describe(request: dict[str, Any]) -> dict[str, Any]:
    program = load(request["program"], trust_pickle=request["trust_pickle"])
    inputs, outputs = tensors(program)
    return {
        "inputs": [asdict(each) for each in inputs],
        "outputs": [asdict(each) for each in outputs],
        "parameters": sum(each.numel() for each in program.state_dict.values() if isinstance(each, torch.nn.Parameter)),
        "activation": last_activation(program),
        "torch": torch.__version__,
    }


def last_activation(program: Any) -> str | None:
    """``softmax`` or ``sigmoid`` if the first output is one's result, past what keeps values as they are."""
    nodes = {node.name: node for node in program.graph.nodes}
    node = nodes.get(program.graph_signature.user_outputs[0])
    while node is not None and node.op == "call_function":
        operator = str(getattr(node.target, "_schema", node.target)).split("(")[0].split("::")[-1].split(".")[0]
        if operator in SQUASHING:
            return SQUASHING[operator]
        if operator not in UNCHANGING:
            return None
        node = node.all_input_nodes[0] if node.all_input_nodes else None
    return None


if __name__ == "__main__":
    answer(describe)
