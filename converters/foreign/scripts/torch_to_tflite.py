"""An ExportedProgram as float TFLite for one example, by litert-torch. Tensors are named by the caller afterwards."""

from __future__ import annotations

import re
from typing import Any

import litert_torch
from _program import flat_export, load, samples, tensors
from _protocol import Refused, answer

MISSING = re.compile(r"Lowering not found: ([\w.:]+)")


def convert(request: dict[str, Any]) -> dict[str, Any]:
    program = load(request["program"], trust_pickle=request["trust_pickle"])
    inputs, outputs = tensors(program)
    one = flat_export(program)
    # Without it, 64-bit inputs and outputs become 32-bit ones, which the model's description does not say.
    wide = any(each.dtype in ("int64", "float64") for each in (*inputs, *outputs))
    try:
        edge = litert_torch.convert(one.module(), samples(inputs), enable_x64=wide)
    except RuntimeError as error:
        missing = MISSING.search(str(error))
        if missing is None:
            raise
        raise Refused(
            "operator", "litert-torch has no lowering for it; compute it from other operators", operator=missing[1]
        ) from error
    edge.export(request["output"])
    return {}


if __name__ == "__main__":
    answer(convert)
