"""Golden examples and the tolerance that honest kernels need, measured across them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.data import Dataset
from converters.engines import open_engine, variants
from converters.errors import CheckFailed
from converters.task import decisions
from edge_runtime.bundle import MAX_GOLDEN_TOLERANCE, TensorSpec
from edge_runtime.golden import write as write_golden

__all__ = ["GoldenFile", "make_golden"]

EXAMPLES = 16
LEAST_EXAMPLES = 2  # of models with large inputs
MAX_BYTES = 2 << 20  # of a golden file, so that images do not outweigh the model
SAFETY = 4.0  # times the largest difference seen between kernels here: other processors have kernels of their own
FLOOR = 1e-4  # of the largest output: float kernels add in different orders


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenFile:
    """``spread`` is the largest difference between kernels that was seen here; ``tolerance`` allows more."""

    data: bytes
    tolerance: float
    examples: int
    spread: float


def make_golden(
    target: str,
    data: bytes,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    rows: Dataset,
    *,
    decide: bool,
    least: float = 0.0,
) -> GoldenFile:
    """Examples with the artifact's own outputs; with ``decide``, spread over its decisions and far from their borders.

    The tolerance is the largest difference between kernel variants (threads, fusions, delegates), times 4, and
    ``least`` or more (for a quantized artifact its mean quantization error); never above the reader's cap. Examples
    that such a difference could decide otherwise are left out. Raises `CheckFailed` when none is left.
    """
    first = outputs[0].name
    answers = open_engine(target, data, inputs, outputs).run(rows.inputs)
    each = sum(array[:1].nbytes for array in (*rows.inputs.values(), *answers.values()))
    chosen = _spread_rows(answers[first], max(LEAST_EXAMPLES, min(EXAMPLES, MAX_BYTES // max(1, each))))
    if not len(chosen):
        raise CheckFailed(f"{target}: no finite answer to any row that could serve as a golden example")
    examples = {name: array[chosen] for name, array in rows.inputs.items()}
    # Asked anew, in an engine that has answered nothing yet, as a device will: a model may keep a state.
    expected = open_engine(target, data, inputs, outputs).run(examples)
    others = [open_engine(target, data, inputs, outputs, variant).run(examples) for variant in variants()]
    spread = max(_difference(expected, other) for other in others)
    scale = max(float(np.abs(value.astype(np.float64)).max(initial=0.0)) for value in expected.values())
    floor = max(FLOOR * max(1.0, scale), least)
    tolerance = float(f"{min(max(SAFETY * spread, floor), MAX_GOLDEN_TOLERANCE):.3g}")
    safe = np.logical_and.reduce([np.isfinite(v.reshape(len(v), -1)).all(axis=1) for v in expected.values()])
    if decide:  # both logits may move by the tolerance, in opposite directions
        safe &= _margins(expected[first]) > 2 * tolerance
        safe &= np.logical_and.reduce([decisions(other[first]) == decisions(expected[first]) for other in others])
    if not safe.any():
        raise CheckFailed(
            f"{target}: kernels differ by up to {spread:.3g}, and no row is decided clearly enough to serve as a "
            "golden example"
        )
    return GoldenFile(
        data=write_golden(
            {name: array[safe] for name, array in examples.items()},
            {name: array[safe] for name, array in expected.items()},
        ),
        tolerance=tolerance,
        examples=int(safe.sum()),
        spread=spread,
    )


def _spread_rows(logits: np.ndarray, count: int) -> np.ndarray:
    """Row numbers, in turns over the decided classes, the clearest half of each class spread evenly."""
    flat = logits.reshape(len(logits), -1)
    usable = np.flatnonzero(np.isfinite(flat).all(axis=1))
    margins, decided = _margins(flat), decisions(flat)
    queues = []
    for each in np.unique(decided[usable]):
        members = usable[decided[usable] == each]
        clearest = members[np.argsort(-margins[members], kind="stable")][: max(1, len(members) // 2)]
        queues.append(list(clearest[np.linspace(0, len(clearest) - 1, min(count, len(clearest))).astype(np.intp)]))
    queues.sort(key=lambda queue: -margins[queue[0]])  # where there is no place for every class, the clearest have it
    result: list[int] = []
    while len(result) < count and any(queues):
        result += [queue.pop(0) for queue in queues if queue]
    return np.array(sorted(result[:count]), dtype=np.intp)


def _margins(logits: np.ndarray) -> np.ndarray:
    """Largest minus second largest, ``(rows,)``; infinite if there is but one."""
    flat = np.sort(logits.reshape(len(logits), -1).astype(np.float64), axis=1)
    margins: np.ndarray = flat[:, -1] - flat[:, -2] if flat.shape[1] > 1 else np.full(len(flat), np.inf)
    return margins


def _difference(expected: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    return max(
        float(np.abs(expected[name].astype(np.float64) - other[name].astype(np.float64)).max(initial=0.0))
        for name in expected
    )
