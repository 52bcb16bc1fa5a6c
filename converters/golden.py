"""Golden examples and the tolerance that honest kernels need, measured across them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.artifact import ConvertedArtifact
from converters.data import Dataset
from converters.engines import open_engine, variants
from converters.errors import CheckFailed
from converters.parity import decisions
from edge_runtime.bundle import MAX_GOLDEN_TOLERANCE, TensorSpec
from edge_runtime.golden import write as write_golden

__all__ = ["GoldenFile", "make_golden"]

EXAMPLES = 16
SAFETY = 4.0  # times the largest difference seen between kernels here: other processors have kernels of their own
FLOOR = 1e-4  # of the largest output: float kernels add in different orders


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenFile:
    data: bytes
    tolerance: float
    examples: int
    measured_spread: float


def make_golden(
    artifact: ConvertedArtifact,
    data: bytes,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    rows: Dataset,
) -> GoldenFile:
    """Examples with the artifact's own outputs, spread over its decisions and far from their borders.

    The tolerance is the largest difference between kernel variants (threads, fusions, delegates),
    times 4, and for int8 at least the artifact's mean quantization error; never above the reader's cap. Examples that
    such a difference could decide otherwise are left out. Raises `CheckFailed` when none is left.
    """
    first = outputs[0].name
    answers = open_engine(artifact.target, data, inputs, outputs).run(rows.inputs)
    chosen = _spread_rows(answers[first], EXAMPLES)
    examples = {name: array[chosen] for name, array in rows.inputs.items()}
    expected = {spec.name: answers[spec.name][chosen] for spec in outputs}
    others = [open_engine(artifact.target, data, inputs, outputs, variant).run(examples) for variant in variants()]
    spread = max(_difference(expected, other) for other in others)
    scale = max(float(np.abs(value).max(initial=0.0)) for value in expected.values())
    floor = max(FLOOR * max(1.0, scale), artifact.mean_abs_error if artifact.precision == "int8" else 0.0)
    tolerance = float(f"{min(max(SAFETY * spread, floor), MAX_GOLDEN_TOLERANCE):.3g}")
    # Both logits may move by the tolerance, in opposite directions.
    safe = _margins(expected[first]) > 2 * tolerance
    safe &= np.logical_and.reduce([decisions(other[first]) == decisions(expected[first]) for other in others])
    if not safe.any():
        raise CheckFailed(
            f"{artifact.kind}: kernels differ by up to {spread:.3g}, and no evaluation row is decided clearly enough "
            "to serve as a golden example"
        )
    return GoldenFile(
        data=write_golden(
            {name: array[safe] for name, array in examples.items()},
            {name: array[safe] for name, array in expected.items()},
        ),
        tolerance=tolerance,
        examples=int(safe.sum()),
        measured_spread=spread,
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
    result: list[int] = []
    while len(result) < count and any(queues):
        result += [queue.pop(0) for queue in queues if queue]
    return np.array(sorted(result[:count]), dtype=np.intp)


def _margins(logits: np.ndarray) -> np.ndarray:
    """Largest minus second largest, ``(rows,)``; infinite if there is but one."""
    flat = np.sort(logits.reshape(len(logits), -1), axis=1)
    margins: np.ndarray = flat[:, -1] - flat[:, -2] if flat.shape[1] > 1 else np.full(len(flat), np.inf)
    return margins


def _difference(expected: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    return max(
        float(np.abs(expected[name].astype(np.float64) - other[name].astype(np.float64)).max(initial=0.0))
        for name in expected
    )
