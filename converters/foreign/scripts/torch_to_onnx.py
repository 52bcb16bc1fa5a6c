"""An ExportedProgram as ONNX, by the exporter that reads such programs (``dynamo=True``), with the given names."""

from __future__ import annotations

import re
from typing import Any

import torch
from _program import load
from _protocol import Refused, answer

MISSING = re.compile(r"No ONNX function found for (?:<OpOverload\(op=')?([\w.:]+)")


def convert(request: dict[str, Any]) -> dict[str, Any]:
    program = load(request["program"], trust_pickle=request["trust_pickle"])
    try:
        torch.onnx.export(
            program,
            f=request["output"],
            input_names=request["inputs"],
            output_names=request["outputs"],
            opset_version=request["opset"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        missing = _missing(error)
        if missing is None:
            raise
        raise Refused(
            "operator",
            "torch.onnx cannot translate it; compute it from other operators in the module",
            operator=missing,
        ) from error
    return {}


def _missing(error: BaseException | None) -> str | None:
    """The operator without a translation, which the exporter names somewhere down the chain of its errors."""
    while error is not None:
        found = MISSING.search(str(error))
        if found:
            return found[1]
        error = error.__cause__
    return None


if __name__ == "__main__":
    answer(convert)
