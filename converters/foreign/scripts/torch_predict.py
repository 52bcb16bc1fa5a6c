"""Outputs of an ExportedProgram for rows in ``.npy`` files, computed a few rows at a time.

``rows`` says how a row becomes an input: ``chunk`` rows at once where the first axis is a dynamic batch; one row, kept
as a batch of 1, where it is fixed to that; one row without the axis where a row is a whole input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _program import Flat, load
from _protocol import answer


def predict(request: dict[str, Any]) -> dict[str, Any]:
    flat = Flat(load(request["program"], trust_pickle=request["trust_pickle"]))
    torch.set_num_threads(request["threads"])
    arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in request["inputs"]]
    results: list[np.ndarray] = []
    rows, step, whole = len(arrays[0]), request["chunk"], request["whole"]
    with torch.no_grad():
        for start in range(0, rows, step):
            given = [np.array(array[start] if whole else array[start : start + step]) for array in arrays]
            outputs = [each.numpy() for each in flat(*(torch.from_numpy(array) for array in given))]
            if whole:
                outputs = [output[None] for output in outputs]
            if not results:
                results = [
                    np.lib.format.open_memmap(path, "w+", dtype=output.dtype, shape=(rows, *output.shape[1:]))
                    for path, output in zip(request["outputs"], outputs, strict=True)
                ]
            for result, output in zip(results, outputs, strict=True):
                result[start : start + len(output)] = output
    for result in results:
        result.flush()
    return {}


if __name__ == "__main__":
    answer(predict)
