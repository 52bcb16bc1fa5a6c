"""MIL operators between floats and 8-bit codes, and compressed constants."""

from __future__ import annotations

import numpy as np

from converters.mil.operands import Function, Operands, axes_of

__all__ = ["QUANTIZATION"]


def _scale_and_zero(o: Operands, rank: int) -> tuple[np.ndarray, np.ndarray]:
    scale = np.asarray(o.constant("scale"), np.float32)
    zero = np.asarray(o.constant("zero_point", 0), np.float32)
    if scale.ndim:
        shape = [1] * rank
        shape[axes_of(o.constant("axis", 0), rank)[0]] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.ndim else zero
    return scale, zero


def _quantize(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("input")
    scale, zero = _scale_and_zero(o, x.ndim)
    limits = np.iinfo(str(o.constant("output_dtype")))
    return (np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(limits.dtype),)


def _dequantize(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("input")
    scale, zero = _scale_and_zero(o, x.ndim)
    return ((x.astype(np.float32) - zero) * scale,)


def _stored(o: Operands) -> tuple[np.ndarray, ...]:
    """A compressed constant; coremltools itself says what it stands for."""
    return (np.asarray(o.operation.materialized_val_inference())[np.newaxis],)


QUANTIZATION: dict[str, Function] = {
    "constexpr_affine_dequantize": _stored,
    "constexpr_blockwise_shift_scale": _stored,
    "constexpr_cast": _stored,
    "constexpr_lut_to_dense": _stored,
    "constexpr_sparse_to_dense": _stored,
    "dequantize": _dequantize,
    "quantize": _quantize,
}
