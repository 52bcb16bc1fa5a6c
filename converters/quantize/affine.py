"""The arithmetic of 8-bit codes: value = (code − zero point) × scale. Pure."""

from __future__ import annotations

import numpy as np

__all__ = ["LEVELS", "WEIGHT_LIMIT", "activation_parameters", "quantize_bias", "quantize_weight"]

WEIGHT_LIMIT = 127  # symmetric and without −128, as every engine's kernels expect
LEVELS = 255  # steps between the lowest and the highest code
SMALLEST_SCALE = 1e-9
LARGEST_BIAS_CODE = 2.0**30  # of an int32, with room for the products that are added to it


def activation_parameters(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 codes for values from ``low`` to ``high``; the range is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / LEVELS, SMALLEST_SCALE)
    return np.float32(scale), np.uint8(np.clip(np.rint(-low / scale), 0, LEVELS))


def quantize_weight(
    weight: np.ndarray, axis: int | None, *, bias: np.ndarray | None = None, input_scale: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes of ``weight`` and their scales: float32 ``(channels,)`` along ``axis``, or a scalar where it is None.

    With a ``bias``, a channel whose weights are so small that its bias would not fit into int32 codes of step
    ``input_scale × scale`` gets a larger scale: its products matter nothing beside that bias.
    """
    others = tuple(each for each in range(weight.ndim) if axis is None or each != axis % weight.ndim)
    scale = np.abs(weight).max(axis=others, initial=0.0).astype(np.float64) / WEIGHT_LIMIT
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / (input_scale * LARGEST_BIAS_CODE))
    scale = np.maximum(scale, SMALLEST_SCALE).astype(np.float32)
    shaped = scale if axis is None else np.expand_dims(scale, others)
    return np.clip(np.rint(weight / shaped), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8), scale


def quantize_bias(bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """int32 codes of a bias ``(channels,)`` with the given scales."""
    limits = np.iinfo(np.int32)
    return np.clip(np.rint(bias / scale.astype(np.float64)), limits.min, limits.max).astype(np.int32)
