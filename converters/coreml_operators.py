"""NumPy meanings of MIL operators, for `coreml_reference`.

Every tensor has one leading axis for the rows (size 1 if it does not depend on the inputs); the axes behind it are the
ones the MIL specification speaks of. Each function takes `Operands` and returns the operator's outputs in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converters.errors import UnsupportedOperator

__all__ = ["OPERATORS", "Operands"]

Function = Callable[["Operands"], tuple[np.ndarray, ...]]


class Operands:
    """The inputs of one operation: `tensor` for data, `constant` for parameters."""

    def __init__(self, operation: Any, values: Mapping[str, np.ndarray]) -> None:
        self.operation = operation
        self.kind = str(operation.op_type)
        self._values = values

    def has(self, name: str) -> bool:
        return self.operation.inputs.get(name) is not None

    def tensor(self, name: str) -> np.ndarray:
        return self._lifted(self.operation.inputs[name])

    def tensors(self, name: str) -> list[np.ndarray]:
        return [self._lifted(var) for var in self.operation.inputs[name]]

    def constant(self, name: str, default: Any = None) -> Any:
        """A parameter's value, without the rows' axis. A parameter that depends on the inputs is refused."""
        var = self.operation.inputs.get(name)
        if var is None:
            return default
        if var.val is not None:
            return var.val
        value = self._values.get(var.name)
        if value is not None and len(value) == 1:
            return value[0]
        raise UnsupportedOperator(self.kind, f"its parameter {name} depends on the inputs (at {self.operation.name})")

    def refuse(self, what: str) -> UnsupportedOperator:
        return UnsupportedOperator(self.kind, f"{what} (at {self.operation.name})")

    def _lifted(self, var: Any) -> np.ndarray:
        if var.name in self._values:
            return self._values[var.name]
        value = np.asarray(var.val)
        return (value.astype(np.float32) if value.dtype.kind == "f" else value)[np.newaxis]


def _axes(values: Any, rank: int) -> tuple[int, ...]:
    """Axes of the specification (which does not count the rows' axis) as axes of a lifted tensor of that rank."""
    return tuple(int(axis) + 1 if axis >= 0 else int(axis) + rank for axis in np.atleast_1d(values))


def _aligned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with as many axes, so that NumPy's broadcasting is that of the specification."""
    rank = max(x.ndim, y.ndim)
    return tuple(v.reshape(v.shape[0], *(1,) * (rank - v.ndim), *v.shape[1:]) for v in (x, y))  # type: ignore[return-value]


def _unary(function: Callable[[np.ndarray], np.ndarray]) -> Function:
    return lambda o: (function(o.tensor("x")),)


def _binary(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Function:
    return lambda o: (function(*_aligned(o.tensor("x"), o.tensor("y"))),)


def _parametric(function: Callable[..., np.ndarray], *names: str) -> Function:
    return lambda o: (function(o.tensor("x"), *(o.constant(name) for name in names)),)


def _reduction(function: Callable[..., np.ndarray]) -> Function:
    def apply(o: Operands) -> tuple[np.ndarray, ...]:
        x = o.tensor("x")
        axes = _axes(o.constant("axes"), x.ndim) if o.has("axes") else tuple(range(1, x.ndim))
        return (function(x, axis=axes, keepdims=bool(o.constant("keep_dims", False))),)

    return apply


def _erf(x: np.ndarray) -> np.ndarray:
    return np.frompyfunc(math.erf, 1, 1)(x.astype(np.float64)).astype(np.float32)  # type: ignore[no-any-return]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu(o: Operands) -> tuple[np.ndarray, ...]:
    x, mode = o.tensor("x"), str(o.constant("mode", "EXACT"))
    if mode == "EXACT":
        return (x * 0.5 * (1 + _erf(x / math.sqrt(2))),)
    if mode == "TANH_APPROXIMATION":
        return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
    return (x * _sigmoid(1.702 * x),)


def _softmax(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = _axes(o.constant("axis", -1), x.ndim)[0]
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True),)


def _cast(o: Operands) -> tuple[np.ndarray, ...]:
    x, dtype = o.tensor("x"), str(o.constant("dtype"))
    if dtype in ("fp16", "fp32"):
        x = x.astype(np.float16) if dtype == "fp16" else x
        return (x.astype(np.float32),)
    return (x.astype({"int32": np.int32, "int16": np.int16, "int8": np.int8, "uint8": np.uint8, "bool": bool}[dtype]),)


# -- shapes ----------------------------------------------------------------------------------------------------------


def _transpose(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return (x.transpose(0, *_axes(o.constant("perm"), x.ndim)),)


def _reshape(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    shape = [int(x.shape[i + 1]) if size == 0 else int(size) for i, size in enumerate(o.constant("shape"))]
    return (x.reshape(len(x), *shape),)


def _expand_dims(o: Operands) -> tuple[np.ndarray, ...]:
    x, axes = o.tensor("x"), np.atleast_1d(o.constant("axes"))
    return (np.expand_dims(x, _axes(axes, x.ndim + len(axes))),)


def _squeeze(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    if not o.has("axes"):
        return (x.reshape(len(x), *(size for size in x.shape[1:] if size != 1)),)
    return (np.squeeze(x, _axes(o.constant("axes"), x.ndim)),)


def _same_rows(tensors: list[np.ndarray]) -> list[np.ndarray]:
    rows = max(len(each) for each in tensors)
    return [np.broadcast_to(each, (rows, *each.shape[1:])) for each in tensors]


def _concat(o: Operands) -> tuple[np.ndarray, ...]:
    if o.constant("interleave", False):
        raise o.refuse("interleaved concatenation is not evaluated")
    tensors = _same_rows(o.tensors("values"))
    return (np.concatenate(tensors, axis=_axes(o.constant("axis"), tensors[0].ndim)[0]),)


def _stack(o: Operands) -> tuple[np.ndarray, ...]:
    tensors = _same_rows(o.tensors("values"))
    return (np.stack(tensors, axis=_axes(o.constant("axis"), tensors[0].ndim + 1)[0]),)


def _split(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = _axes(o.constant("axis"), x.ndim)[0]
    sizes = o.constant("split_sizes")
    cuts = int(o.constant("num_splits")) if sizes is None else np.cumsum(sizes)[:-1]
    return tuple(np.split(x, cuts, axis=axis))


def _slice_by_index(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    begin, end = o.constant("begin"), o.constant("end")
    rank = x.ndim - 1
    no = np.zeros(rank, bool)
    stride = o.constant("stride", np.ones(rank, int))
    begin_mask, end_mask, squeeze = (o.constant(name, no) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    index: list[Any] = [slice(None)]
    for axis in range(rank):
        if squeeze[axis]:
            index.append(int(begin[axis]))
            continue
        first = None if begin_mask[axis] else int(begin[axis])
        last = None if end_mask[axis] else int(end[axis])
        index.append(slice(first, last, int(stride[axis])))
    return (x[tuple(index)],)


def _slice_by_size(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    index: list[Any] = [slice(None)]
    for begin, size in zip(o.constant("begin"), o.constant("size"), strict=True):
        index.append(slice(int(begin), None if size == -1 else int(begin) + int(size)))
    return (x[tuple(index)],)


def _pad(o: Operands) -> tuple[np.ndarray, ...]:
    x, pad, mode = o.tensor("x"), np.asarray(o.constant("pad")).reshape(-1, 2), str(o.constant("mode", "constant"))
    widths = [(0, 0)] * (x.ndim - len(pad)) + [(int(before), int(after)) for before, after in pad]
    if mode == "constant":
        return (np.pad(x, widths, constant_values=o.constant("constant_val", 0)),)
    return (np.pad(x, widths, mode={"reflect": "reflect", "replicate": "edge"}[mode]),)


def _crop(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    (top, bottom), (left, right) = o.constant("crop_height"), o.constant("crop_width")
    return (x[..., int(top) : x.shape[-2] - int(bottom), int(left) : x.shape[-1] - int(right)],)


def _gather(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    if int(o.constant("batch_dims", 0)):
        raise o.refuse("batch_dims other than 0 is not evaluated")
    return (np.take(x, np.asarray(o.constant("indices")), axis=_axes(o.constant("axis", 0), x.ndim)[0]),)


def _tile(o: Operands) -> tuple[np.ndarray, ...]:
    return (np.tile(o.tensor("x"), (1, *(int(n) for n in o.constant("reps")))),)


def _select(o: Operands) -> tuple[np.ndarray, ...]:
    condition, a = _aligned(o.tensor("cond"), o.tensor("a"))
    condition, b = _aligned(condition, o.tensor("b"))
    a, b = _aligned(a, b)
    return (np.where(condition, a, b),)


# -- weights ---------------------------------------------------------------------------------------------------------


def _linear(o: Operands) -> tuple[np.ndarray, ...]:
    y = o.tensor("x") @ np.asarray(o.constant("weight"), np.float32).T
    return (y + np.asarray(o.constant("bias"), np.float32) if o.has("bias") else y,)


def _matmul(o: Operands) -> tuple[np.ndarray, ...]:
    x, y = _aligned(o.tensor("x"), o.tensor("y"))
    x = np.swapaxes(x, -1, -2) if o.constant("transpose_x", False) else x
    y = np.swapaxes(y, -1, -2) if o.constant("transpose_y", False) else y
    return (x @ y,)


def _paddings(o: Operands, sizes: tuple[int, ...], kernel: list[int], strides: list[int], dilations: list[int]) -> Any:
    """(before, after) for each spatial axis, by the operator's ``pad_type``."""
    kind = str(o.constant("pad_type", "valid"))
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        return [(int(a), int(b)) for a, b in np.asarray(o.constant("pad")).reshape(-1, 2)]
    result = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        result.append((more, less) if kind == "same_lower" else (less, more))
    return result


def _positions(x: np.ndarray, kernel: list[int], strides: list[int], dilations: list[int]) -> Any:
    """For each kernel position, its index and the view of the padded ``x`` that it multiplies."""
    spatial = x.shape[2:]
    counts = [
        (size - (k - 1) * d - 1) // s + 1 for size, k, s, d in zip(spatial, kernel, strides, dilations, strict=True)
    ]
    for position in np.ndindex(*kernel):
        window = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(position, dilations, counts, strides, strict=True)
        )
        yield position, x[(slice(None), slice(None), *window)]


def _conv(o: Operands) -> tuple[np.ndarray, ...]:
    x, weight = o.tensor("x"), np.asarray(o.constant("weight"), np.float32)
    kernel, rank = list(weight.shape[2:]), weight.ndim - 2
    strides = [int(v) for v in o.constant("strides", [1] * rank)]
    dilations = [int(v) for v in o.constant("dilations", [1] * rank)]
    groups = int(o.constant("groups", 1))
    flat = x.reshape(-1, *x.shape[2:])  # rows and the program's own batch together
    pads = _paddings(o, flat.shape[2:], kernel, strides, dilations)
    flat = np.pad(flat, [(0, 0), (0, 0), *pads])
    out_channels, per_group = weight.shape[:2]
    total: Any = 0
    for position, view in _positions(flat, kernel, strides, dilations):
        part = weight[(slice(None), slice(None), *position)]  # (out, in / groups)
        shape = view.shape[2:]
        if per_group == 1:
            spread = np.repeat(view, out_channels // groups, axis=1)
            product = spread * part.reshape(1, out_channels, *(1,) * rank)
        else:
            grouped = view.reshape(len(flat), groups, per_group, -1)
            product = part.reshape(groups, out_channels // groups, per_group) @ grouped
            product = product.reshape(len(flat), out_channels, *shape)
        total = product if isinstance(total, int) else np.add(total, product, out=total)
    if o.has("bias"):
        total = total + np.asarray(o.constant("bias"), np.float32).reshape(1, out_channels, *(1,) * rank)
    return (total.reshape(*x.shape[:2], *total.shape[1:]),)


def _pool(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    kernel = [int(v) for v in o.constant("kernel_sizes")]
    strides = [int(v) for v in o.constant("strides", [1] * len(kernel))]
    if o.constant("ceil_mode", False):
        raise o.refuse("ceil_mode is not evaluated")
    flat = x.reshape(-1, *x.shape[2:])
    ones = [1] * len(kernel)
    pads = [(0, 0), (0, 0), *_paddings(o, flat.shape[2:], kernel, strides, ones)]
    if o.kind == "max_pool":
        padded = np.pad(flat, pads, constant_values=-np.inf)
        result = np.maximum.reduce([view for _, view in _positions(padded, kernel, strides, ones)])
    else:
        result = sum(view for _, view in _positions(np.pad(flat, pads), kernel, strides, ones))
        if o.constant("exclude_padding_from_average", False):
            covered = np.pad(np.ones_like(flat[:1, :1]), pads)
            result = result / sum(view for _, view in _positions(covered, kernel, strides, ones))
        else:
            result = result / math.prod(kernel)
    return (result.reshape(*x.shape[:2], *result.shape[1:]),)


def _batch_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    shape = (1, 1, -1, *(1,) * (x.ndim - 3))
    mean, variance = (np.asarray(o.constant(name), np.float32).reshape(shape) for name in ("mean", "variance"))
    y = (x - mean) / np.sqrt(variance + np.float32(o.constant("epsilon", 1e-5)))
    gamma, beta = o.constant("gamma"), o.constant("beta")
    y = y if gamma is None else y * np.asarray(gamma, np.float32).reshape(shape)
    return (y if beta is None else y + np.asarray(beta, np.float32).reshape(shape),)


def _layer_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axes = _axes(o.constant("axes", range(x.ndim - 1)), x.ndim)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(
        x.var(axes, keepdims=True) + np.float32(o.constant("epsilon", 1e-5))
    )
    gamma, beta = o.constant("gamma"), o.constant("beta")
    y = y if gamma is None else y * np.asarray(gamma, np.float32)
    return (y if beta is None else y + np.asarray(beta, np.float32),)


# -- quantization ----------------------------------------------------------------------------------------------------


def _scale_and_zero(o: Operands, rank: int) -> tuple[np.ndarray, np.ndarray]:
    scale = np.asarray(o.constant("scale"), np.float32)
    zero = np.asarray(o.constant("zero_point", 0), np.float32)
    if scale.ndim:
        shape = [1] * rank
        shape[_axes(o.constant("axis", 0), rank)[0]] = -1
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


OPERATORS: dict[str, Function] = {
    "abs": _unary(np.abs),
    "add": _binary(np.add),
    "avg_pool": _pool,
    "batch_norm": _batch_norm,
    "cast": _cast,
    "ceil": _unary(np.ceil),
    "clip": _parametric(np.clip, "alpha", "beta"),
    "concat": _concat,
    "constexpr_affine_dequantize": _stored,
    "constexpr_blockwise_shift_scale": _stored,
    "conv": _conv,
    "crop": _crop,
    "cos": _unary(np.cos),
    "dequantize": _dequantize,
    "elu": _parametric(lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), "alpha"),
    "equal": _binary(np.equal),
    "erf": _unary(_erf),
    "exp": _unary(np.exp),
    "expand_dims": _expand_dims,
    "floor": _unary(np.floor),
    "floor_div": _binary(np.floor_divide),
    "gather": _gather,
    "gelu": _gelu,
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "identity": _unary(lambda x: x),
    "inverse": _parametric(lambda x, e: 1 / (x + np.float32(e)), "epsilon"),
    "layer_norm": _layer_norm,
    "leaky_relu": _parametric(lambda x, a: np.where(x >= 0, x, np.float32(a) * x), "alpha"),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "linear": _linear,
    "log": _parametric(lambda x, e: np.log(x + np.float32(e)), "epsilon"),
    "logical_and": _binary(np.logical_and),
    "logical_not": _unary(np.logical_not),
    "logical_or": _binary(np.logical_or),
    "matmul": _matmul,
    "max_pool": _pool,
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pad": _pad,
    "pow": _binary(np.power),
    "quantize": _quantize,
    "real_div": _binary(np.divide),
    "reduce_max": _reduction(np.max),
    "reduce_mean": _reduction(np.mean),
    "reduce_min": _reduction(np.min),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "reduce_sum_square": _reduction(lambda x, **where: np.sum(x * x, **where)),
    "relu": _unary(lambda x: np.maximum(x, 0)),
    "relu6": _unary(lambda x: np.clip(x, 0, 6)),
    "reshape": _reshape,
    "round": _unary(np.rint),
    "rsqrt": _parametric(lambda x, e: 1 / np.sqrt(x + np.float32(e)), "epsilon"),
    "select": _select,
    "sigmoid": _unary(_sigmoid),
    "sigmoid_hard": _parametric(lambda x, a, b: np.clip(a * x + b, 0, 1), "alpha", "beta"),
    "sign": _unary(np.sign),
    "silu": _unary(lambda x: x * _sigmoid(x)),
    "sin": _unary(np.sin),
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "softmax": _softmax,
    "softplus": _unary(lambda x: np.logaddexp(0, x)),
    "softsign": _unary(lambda x: x / (1 + np.abs(x))),
    "split": _split,
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "squeeze": _squeeze,
    "stack": _stack,
    "sub": _binary(np.subtract),
    "tanh": _unary(np.tanh),
    "tile": _tile,
    "transpose": _transpose,
}
