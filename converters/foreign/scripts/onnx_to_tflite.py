"""An ONNX model of static shapes as float TFLite, by onnx2tf's direct writer, with inputs laid out as ONNX has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import onnx2tf
from _protocol import Refused, answer

# How onnx2tf words a node that it cannot lower.
REFUSED = re.compile(r"op=(\S+) node=(\S*) reason_code=(\S+) message=([^\n]+)")


def convert(request: dict[str, Any]) -> dict[str, Any]:
    model = onnx.load(request["model"])
    try:
        onnx2tf.convert(
            input_onnx_file_path=request["model"],
            output_folder_path="made",
            # Else images are laid out again as NHWC, and callers of the ONNX model would have to know.
            keep_shape_absolutely_input_names=[value.name for value in model.graph.input],
            not_use_opname_auto_generate=True,
            non_verbose=True,
            verbosity="error",
        )
    except NotImplementedError as error:
        found = REFUSED.search(str(error))
        if found is None:
            raise
        operator, node, _, message = found.groups()
        raise Refused("operator", f"onnx2tf cannot convert node {node}: {message}", operator=operator) from error
    made = list(Path("made").glob("*_float32.tflite"))
    if len(made) != 1:
        raise RuntimeError(f"onnx2tf wrote {len(made)} float models")
    Path(request["output"]).write_bytes(made[0].read_bytes())
    return {}


if __name__ == "__main__":
    answer(convert)
