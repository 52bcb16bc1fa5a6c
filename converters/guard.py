"""Fit the input guard: which inputs lie outside the training data (docs/spec/guard.md). Pure.

The score is `edge_runtime.guard`'s, so that the device computes what was fitted. The threshold is a conformal one: with
n held-out rows it is the ⌈(n + 1)(1 − α)⌉-th smallest of their scores, so that a new row drawn as they were is refused
with probability at most α, whatever the data look like (Vovk et al. 2005; Lei et al. 2018, section 2.1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.errors import InvalidRequest
from edge_runtime.bundle import MAX_GUARD_DIRECTIONS, MAX_GUARD_SUMMARIES, Guard, GuardPart, TensorSpec
from edge_runtime.bundle.guard import GuardReduction
from edge_runtime.guard import GuardScorer, summaries

__all__ = ["fit_guard", "guard_parts"]

EVERYTHING: tuple[GuardReduction, ...] = ("mean", "log_std", "min", "max", "roughness")
MAX_CHANNELS = 16
MAX_COLUMNS = 256  # a longer vector is rather a signal
MAX_ROWS = 20_000
MAX_ELEMENTS = 65_536  # of one example that are looked at; more cost the device more than they tell
CHUNK_ELEMENTS = 4_000_000  # summarized at once, in binary64
MIN_FIT_ROWS = 20
HELD_OUT = 0.5
FOLDS = 10
LEAST_VARIANCE = 0.01  # of standardized summaries; below, rounding would be taken for structure
SAME = 1e-9  # a spread below this share of the middle is rounding
CONSTANT_SPREAD = 1e-3  # what a constant summary may vary by, as a share of it


def fit_guard(
    inputs: Mapping[str, np.ndarray],
    specs: Sequence[TensorSpec],
    *,
    seed: int = 0,
    false_refusal: float = 0.01,
    groups: np.ndarray | None = None,
    data_sha256: str | None = None,
) -> Guard | str:
    """A guard from training rows, or the reason why there is none.

    ``inputs`` hold rows on axis 0 and were checked against ``specs``. A random half of the rows gives the distance, the
    other the threshold for a share of ``false_refusal`` of rows like them; of more than 20,000 rows so many are drawn.

    With ``groups`` (rows,), of which there are two or more, each row's score for the threshold comes from a fit
    without its group, in up to 10 folds, and the distance from all rows: the threshold then has seen how far a new
    person lies from the others, but nothing is promised for a finite number of them. ``data_sha256`` names the data in
    the manifest; by default it is the digest of ``inputs``.
    """
    if not 0 < false_refusal < 1:
        raise InvalidRequest(f"a share of falsely refused inputs is between 0 and 1, not {false_refusal}")
    rows = len(next(iter(inputs.values())))
    needed = math.ceil(1 / false_refusal) - 1
    if rows < needed + MIN_FIT_ROWS:
        least = needed + MIN_FIT_ROWS
        return f"{rows} training rows; {least} are needed to refuse no more than {false_refusal:.1%} of rows like them"
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(rows)[:MAX_ROWS])
    parts = guard_parts(specs, {name: array.shape[1:] for name, array in inputs.items()})
    values = _summaries(parts, inputs, chosen)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        return f"{int((~finite).sum())} training rows with values that are not finite"

    folds = None if groups is None else _folds(groups[chosen], rng)
    if folds is None:
        order = rng.permutation(len(values))
        held = order[: max(needed, round(HELD_OUT * len(values)))]
        fit = _fit(np.delete(values, held, axis=0))
        scores = fit.scores(values[held])
    else:
        fit = _fit(values)
        scores = np.concatenate([_fit(values[folds != k]).scores(values[folds == k]) for k in range(folds.max() + 1)])
    rank = min(math.ceil((len(scores) + 1) * (1 - false_refusal)), len(scores))
    return Guard(
        score="mahalanobis",
        parts=parts,
        center=fit.center,
        scale=fit.scale,
        directions=fit.directions,
        variances=fit.variances,
        residual=fit.residual,
        threshold=float(np.sort(scores)[rank - 1]),
        false_refusal=false_refusal,
        rows=len(scores),
        data_sha256=data_sha256 or _digest(inputs),
    )


def guard_parts(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> tuple[GuardPart, ...]:
    """What to summarize of each input, within its share of the 64 summaries; ``shapes`` are of one example each.

    A vector of up to 256: its columns, evenly spread ones where they are too many, and the spread of all. Anything
    else: each channel if they are few, the channels being on the shorter of the first and the last axis; else the
    whole, and the mean of each channel where that still fits.
    """
    budget = MAX_GUARD_SUMMARIES // len(specs)
    parts: list[GuardPart] = []
    for spec in specs:
        axes = spec.shape[1:] if spec.shape[:1] == ("batch",) else spec.shape
        parts.extend(_parts_of(spec.name, axes, shapes[spec.name], budget))
    return tuple(parts)


def _parts_of(name: str, axes: tuple[int | str, ...], shape: tuple[int, ...], budget: int) -> list[GuardPart]:
    size = math.prod(shape)
    if all(isinstance(axis, int) for axis in axes) and size == max(shape, default=1) <= MAX_COLUMNS:
        if size == 1 or budget == 1:
            return [GuardPart(input=name, reduce=("value",), stride=size)]
        stride = -(-size // (budget - 1))
        return [GuardPart(input=name, reduce=("value",), stride=stride), GuardPart(input=name, reduce=("log_std",))]
    whole = GuardPart(input=name, reduce=EVERYTHING[:budget], stride=_stride(shape, None))
    fixed = [axis for axis in {len(axes) - 1, 0} if isinstance(axes[axis], int)]
    if not fixed:
        return [whole]
    axis = min(fixed, key=lambda a: (shape[a], -a))
    stride = _stride(shape, axis)
    if shape[axis] <= MAX_CHANNELS and shape[axis] * len(EVERYTHING) <= budget:
        return [GuardPart(input=name, reduce=EVERYTHING, axis=axis, stride=stride)]
    if shape[axis] + len(EVERYTHING) <= budget:
        return [whole, GuardPart(input=name, reduce=("mean",), axis=axis, stride=stride)]
    return [whole]


def _stride(shape: tuple[int, ...], kept: int | None) -> int:
    """The smallest stride on all axes but ``kept`` that leaves at most `MAX_ELEMENTS`."""
    stride = 1
    while math.prod(n if axis == kept else -(-n // stride) for axis, n in enumerate(shape)) > MAX_ELEMENTS:
        stride += 1
        if stride > max(shape):
            break  # the kept axis alone is longer
    return stride


def _summaries(parts: tuple[GuardPart, ...], inputs: Mapping[str, np.ndarray], chosen: np.ndarray) -> np.ndarray:
    elements = sum(math.prod(array.shape[1:]) for array in inputs.values())
    step = max(1, CHUNK_ELEMENTS // max(elements, 1))
    chunks = [chosen[start : start + step] for start in range(0, len(chosen), step)]
    return np.concatenate([summaries(parts, {name: a[rows] for name, a in inputs.items()}) for rows in chunks])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """The numbers of a `Guard` that come from rows of summaries, rounded as they are shipped."""

    center: tuple[float, ...]
    scale: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    variances: tuple[float, ...]
    residual: float

    def scores(self, values: np.ndarray) -> np.ndarray:
        """The scores of rows of summaries, computed by the device's own code."""
        columns = TensorSpec(name="summaries", dtype="float32", shape=("batch", values.shape[1]))
        guard = Guard(
            score="mahalanobis",
            parts=(GuardPart(input=columns.name, reduce=("value",)),),
            center=self.center,
            scale=self.scale,
            directions=self.directions,
            variances=self.variances,
            residual=self.residual,
            threshold=0.0,
            false_refusal=0.0,
            rows=0,
            data_sha256="",
        )
        return GuardScorer(guard, (columns,)).scores({columns.name: values})


def _fit(values: np.ndarray) -> _Fit:
    """Robust center and scale of each column; then the strongest directions of the second moments about the center."""
    center = np.median(values, axis=0)
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    least = SAME * np.abs(center)
    scale = (high - low) / 1.349  # of a normal distribution, the standard deviation
    for fallback in (values.std(axis=0), CONSTANT_SPREAD * np.abs(center)):
        scale = np.where(scale > least, scale, fallback)
    scale = np.where(scale > 0, scale, CONSTANT_SPREAD)
    z = np.arcsinh((values - center) / scale)
    variances, vectors = np.linalg.eigh(z.T @ z / len(z))
    variances = np.maximum(variances[::-1], LEAST_VARIANCE)
    count = min(MAX_GUARD_DIRECTIONS, len(center) - 1)
    return _Fit(
        # A center needs all its digits, since a timestamp varies in the last ones only.
        center=tuple(float(f"{value:.15g}") for value in center),
        scale=_rounded(scale),
        directions=tuple(_rounded(vector) for vector in vectors.T[::-1][:count]),
        variances=_rounded(variances[:count]),
        residual=_rounded(variances[count:].mean(keepdims=True))[0],
    )


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """Six significant digits: the manifest travels to every device."""
    return tuple(float(f"{value:.6g}") for value in values)


def _folds(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """The fold of each row, whole groups in one; None with fewer than two groups."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None
    fold = rng.permutation(len(names)) % min(FOLDS, len(names))
    return np.asarray(fold[group])


def _digest(inputs: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
