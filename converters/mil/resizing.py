"""MIL operators that resize the last two axes. Sampling grids as coremltools' documentation of each defines them."""

from __future__ import annotations

import numpy as np

from converters.mil.operands import Function, Operands

__all__ = ["RESIZING"]


def _grid(size: int, wanted: int, mode: str) -> np.ndarray:
    """Where the output's places lie along an input axis of that size: float64 ``(wanted,)``."""
    places = np.arange(wanted, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if wanted == 1:
            return np.array([(size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
        points = places * ((size - 1) / (wanted - 1))
    elif mode == "UNALIGN_CORNERS":
        points = (places + 0.5) * (size / wanted) - 0.5
    elif mode == "OFFSET_CORNERS":
        points = (places + 0.5) * (max(1, size - 1) / wanted)
    else:  # DEFAULT
        points = places * (size / wanted)
    return np.clip(points, 0, size - 1)


def _linear(x: np.ndarray, axis: int, points: np.ndarray) -> np.ndarray:
    below = np.floor(points).astype(np.intp)
    above = np.minimum(below + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = len(points)
    share = (points - below).astype(np.float32).reshape(shape)
    return np.asarray(np.take(x, below, axis) * (1 - share) + np.take(x, above, axis) * share)


def _bilinear(x: np.ndarray, height: int, width: int, mode: str) -> np.ndarray:
    rows, columns = _grid(x.shape[-2], height, mode), _grid(x.shape[-1], width, mode)
    return _linear(_linear(x, x.ndim - 2, rows), x.ndim - 1, columns)


def _nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
    for axis, wanted in ((x.ndim - 2, height), (x.ndim - 1, width)):
        x = np.take(x, np.arange(wanted) * x.shape[axis] // wanted, axis)
    return x


def _scaled_sizes(o: Operands, x: np.ndarray) -> tuple[int, int]:
    factors = o.number("scale_factor_height", 1), o.number("scale_factor_width", 1)
    height, width = (int(np.floor(factor * size)) for factor, size in zip(factors, x.shape[-2:], strict=True))
    return height, width


def _target_sizes(o: Operands) -> tuple[int, int]:
    return int(o.constant("target_size_height", 1)), int(o.constant("target_size_width", 1))


def _upsample_bilinear(o: Operands) -> tuple[np.ndarray, ...]:
    x, corners = o.tensor("x"), bool(o.constant("align_corners", True))
    centers = bool(o.constant("half_pixel_centers", not corners))
    mode = "STRICT_ALIGN_CORNERS" if corners else "UNALIGN_CORNERS" if centers else "DEFAULT"
    return (_bilinear(x, *_scaled_sizes(o, x), mode),)


def _upsample_nearest(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return (_nearest(x, *_scaled_sizes(o, x)),)


def _resize_bilinear(o: Operands) -> tuple[np.ndarray, ...]:
    return (_bilinear(o.tensor("x"), *_target_sizes(o), str(o.constant("sampling_mode", "DEFAULT"))),)


def _resize_nearest(o: Operands) -> tuple[np.ndarray, ...]:
    return (_nearest(o.tensor("x"), *_target_sizes(o)),)


def _resize(o: Operands) -> tuple[np.ndarray, ...]:
    x, count = o.tensor("x"), int(o.constant("resized_dims"))
    wanted = [size or x.shape[axis] for size, axis in zip(o.integers("shape")[-count:], range(-count, 0), strict=True)]
    if count > 2:
        raise o.refuse("resizing of more than two axes is not evaluated")
    height, width = (x.shape[-2], *wanted)[-2:]
    if str(o.constant("interpolation_mode", "LINEAR")) == "LINEAR":
        return (_bilinear(x, height, width, str(o.constant("sampling_mode", "DEFAULT"))),)
    if height % x.shape[-2] or width % x.shape[-1]:
        raise o.refuse("nearest neighbours at a ratio that is not whole are not evaluated")
    return (_nearest(x, height, width),)


RESIZING: dict[str, Function] = {
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
