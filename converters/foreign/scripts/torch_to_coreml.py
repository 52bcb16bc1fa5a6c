"""An ExportedProgram as a Core ML package for one example: float32 in, out and between, with the given names."""

from __future__ import annotations

import re
from typing import Any

import coremltools as ct
import numpy as np
import torch
from _program import flat_export, load, tensors
from _protocol import Refused, answer

DTYPES = {"float32": np.float32, "float16": np.float16, "int32": np.int32, "int64": np.int32}
MISSING = re.compile(r"Unsupported fx node ([\w.]+), kind ([\w.]+)|PyTorch convert function for op '([\w.]+)'")


def convert(request: dict[str, Any]) -> dict[str, Any]:
    program = load(request["program"], trust_pickle=request["trust_pickle"])
    inputs, _ = tensors(program)
    for each in inputs:
        if each.dtype not in DTYPES:
            raise Refused(
                "model", f"input {each.name} is {each.dtype}, which Core ML does not take; use float32 or int32"
            )
    given = [
        ct.TensorType(
            name=name,
            shape=tuple(size if isinstance(size, int) else 1 for size in each.shape),
            dtype=DTYPES[each.dtype],
        )
        for name, each in zip(request["inputs"], inputs, strict=True)
    ]
    try:
        model = ct.convert(
            flat_export(program).run_decompositions(_unrolled()),
            inputs=given,
            outputs=[ct.TensorType(name=name) for name in request["outputs"]],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, request["deployment"]),
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        missing = MISSING.search(str(error))
        if missing is None:
            raise
        raise Refused(
            "operator",
            "coremltools cannot translate it; compute it from other operators",
            operator=next(group for group in missing.groups()[::-1] if group),
        ) from error
    model.user_defined_metadata.clear()  # holds the date
    model.save(request["output"])
    return {}


def _unrolled() -> dict[Any, Any]:
    """How to compute the recurrent layers that coremltools does not know, step by step. LSTMs it knows."""
    return {
        operator: decomposition
        for operator, decomposition in torch.export.default_decompositions().items()
        if str(operator).startswith(("aten.gru.", "aten.rnn_relu.", "aten.rnn_tanh."))
    }


if __name__ == "__main__":
    answer(convert)
