"""Put 8-bit or half-precision weights, and the rounding of activations, into a float ONNX graph. No engine runs here.

Static activations are written as QDQ: quantize and dequantize around the operators, which ONNX Runtime fuses into its
integer kernels. https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, product
from typing import Any

import numpy as np

from converters.onnx_file import graphs_of
from converters.quantize.affine import activation_parameters, quantize_bias, quantize_weight
from converters.quantize.calibration import Range
from converters.quantize.correction import bias_shift
from converters.quantize.onnx_between import between
from converters.quantize.onnx_graph import MATRIX, RECURRENT, OnnxUnit, channel_axis, data_input, origin
from converters.quiet import load_tool

__all__ = ["MODES", "rewrite"]

MODES = {"int8": "static", "int8-dynamic": "dynamic", "int8-weights": "weights", "fp16": "half"}
LARGEST_HALF = 65504.0
SMALLEST_SHARED = 256  # bytes; to repeat fewer is cheaper than the operator that would copy them


def rewrite(
    model: Any,
    units: Iterable[OnnxUnit],
    mode: str,
    *,
    ranges: Mapping[str, Range] | None = None,
    means: Mapping[tuple[str, int], np.ndarray] | None = None,
) -> Any:
    """A copy of ``model`` with the given units quantized.

    ``mode`` is ``static`` (weights and activations, with ``ranges`` of the activations), ``dynamic`` (activations at
    run time; convolutions and recurrent cells as in ``weights``), ``weights`` (8-bit, computed in float) or ``half``
    (stored as 16-bit floats, computed in float). ``means`` of what units read, by name and channel axis, correct their
    biases for the rounding of weights; without them biases stay as they are.
    """
    onnx = load_tool("onnx")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    chosen = {unit.name: unit for unit in units}
    _Writer(result.graph, {}, chosen, mode, ranges or {}, means or {}, count()).write()
    _drop_unused(result.graph)
    for graph in graphs_of(result.graph):
        del graph.value_info[:]
    return result


class _Writer:
    """Rewrites one graph and, with writers of their own, the bodies inside it."""

    def __init__(
        self,
        graph: Any,
        outer: Mapping[str, Any],
        units: Mapping[str, OnnxUnit],
        mode: str,
        ranges: Mapping[str, Range],
        means: Mapping[tuple[str, int], np.ndarray],
        numbers: Iterator[int],
    ) -> None:
        self._onnx = load_tool("onnx")
        self._graph = graph
        self._constants = {**outer, **{each.name: each for each in graph.initializer}}
        self._units = units
        self._mode = mode
        self._ranges = ranges
        self._means = means
        self._producers = {name: node for node in graph.node for name in node.output}
        self._between = between(graph, units if mode == "static" else {}, self._constants)
        self._nodes: list[Any] = []
        self._pairs: dict[str, str] = {}  # tensor → its rounded copy, read by quantized operators only
        self._rounded: set[str] = set()  # tensors that are themselves the end of a pair
        self._shared: dict[bytes, str] = {}
        self._spellings: dict[bytes, Iterator[tuple[int, ...]]] = {}
        self._numbers = numbers  # of new names, which must differ in nested graphs too

    def write(self) -> None:
        fused = {unit.activation for unit in self._units.values() if self._mode == "static"} - {None}
        activations = {node.name: node for node in self._graph.node if node.name in fused}
        for node in self._graph.node:
            for attribute in node.attribute:
                for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                    _Writer(
                        body, self._constants, self._units, self._mode, self._ranges, self._means, self._numbers
                    ).write()
            unit = self._units.get(node.name)
            if unit is not None:
                self._write_unit(node, unit, activations.get(unit.activation or ""))
            elif node.name not in activations:
                self._nodes.append(node)
                if self._between.apart.intersection(node.output):
                    name, node.output[0] = node.output[0], self._name(node.output[0])
                    self._nodes.append(self._onnx.helper.make_node("Sum", [node.output[0]], [name]))
        copies = [type(node)() for node in self._nodes]
        for copy, node in zip(copies, self._nodes, strict=True):
            copy.CopyFrom(node)
        del self._graph.node[:]
        self._graph.node.extend(copies)

    def _write_unit(self, node: Any, unit: OnnxUnit, activation: Any | None) -> None:
        if self._mode == "half":
            for at in unit.weight_inputs:
                node.input[at] = self._half(node.input[at])
        elif self._mode == "static":
            self._write_static(node, unit, activation)
            return
        elif self._mode == "dynamic" and self._is_plain_product(node, unit):
            self._correct_bias(node, unit)
            self._write_dynamic(node)
            return
        else:
            self._correct_bias(node, unit)
            for at in unit.weight_inputs:
                node.input[at] = self._weight(node.input[at], self._axis(node, at))[0]
        self._nodes.append(node)

    def _write_static(self, node: Any, unit: OnnxUnit, activation: Any | None) -> None:
        (weight_at,) = unit.weight_inputs
        self._correct_bias(node, unit)
        data_at = data_input(unit)
        source = node.input[data_at]
        scale, _ = self._parameters(source)
        axis = self._axis(node, weight_at)
        bias = self._array(node.input[2]) if self._has_plain_bias(node, axis) else None
        weight, scales = self._weight(node.input[weight_at], axis, bias=bias, input_scale=float(scale))
        node.input[data_at] = self._pair(source)
        node.input[weight_at] = weight
        if bias is not None:
            node.input[2] = self._bias(bias, np.atleast_1d(scales * np.float32(scale)))
        output = activation.output[0] if activation is not None else node.output[0]
        self._nodes.append(node)
        if output not in self._between.coded:
            if activation is not None:
                self._nodes.append(activation)
            return
        inner = self._name(output)
        node.output[0] = inner
        self._nodes.extend(self._pair_nodes(inner, output, self._parameters(output)))
        self._rounded.add(output)

    def _write_dynamic(self, node: Any) -> None:
        """Rounding at run time, an integer product, and back: which ONNX Runtime fuses into one kernel."""
        helper = self._onnx.helper
        weight = self._array(node.input[1])
        if node.op_type == "Gemm" and _attribute(node, "transB", 0):
            weight = weight.T
        codes, scales = quantize_weight(weight, 1)
        base = node.output[0]
        rounded, scale, zero, sums, floats, step, scaled = (self._name(base) for _ in range(7))
        bias = node.input[2] if len(node.input) > 2 else ""
        self._nodes += [
            helper.make_node("DynamicQuantizeLinear", [node.input[0]], [rounded, scale, zero]),
            helper.make_node(
                "MatMulInteger",
                [rounded, self._constant(codes), zero, self._constant(np.zeros((), np.int8))],
                [sums],
                name=node.name,
            ),
            helper.make_node("Cast", [sums], [floats], to=self._onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [scale, self._constant(scales)], [step]),
            helper.make_node("Mul", [floats, step], [scaled if bias else base]),
        ]
        if bias:
            self._nodes.append(helper.make_node("Add", [scaled, bias], [base]))

    def _is_plain_product(self, node: Any, unit: OnnxUnit) -> bool:
        """Whether it is input × matrix (+ bias), with nothing transposed or scaled but the matrix."""
        if node.op_type not in MATRIX or unit.weight_inputs != (1,) or len(self._constants[node.input[1]].dims) != 2:
            return False
        factors = _attribute(node, "alpha", 1.0) != 1.0 or _attribute(node, "beta", 1.0) != 1.0
        return not (factors or _attribute(node, "transA", 0))

    def _correct_bias(self, node: Any, unit: OnnxUnit) -> None:
        """Replace a constant bias by one that makes up for the rounding of the weights, where that can be known."""
        key = channel_axis(node, unit)
        if key is None or key not in self._means or node.op_type not in ("Conv", "Gemm"):
            return
        weight, axis = self._array(node.input[1]), self._axis(node, 1)
        if axis is None or not self._has_plain_bias(node, axis):
            return
        codes, scales = quantize_weight(weight, axis)
        error = weight - codes * np.expand_dims(scales, tuple(at for at in range(weight.ndim) if at != axis))
        groups = int(_attribute(node, "group", 1)) if node.op_type == "Conv" else 1
        shift = bias_shift(error, self._means[key], outputs=axis, inputs=1 - axis, groups=groups)
        name = self._initializer(self._array(node.input[2]) + shift)
        self._constants[name] = self._graph.initializer[-1]
        node.input[2] = name

    def _axis(self, node: Any, at: int) -> int | None:
        """The axis of a weight that holds output channels; None where one scale must do."""
        rank = len(self._constants[node.input[at]].dims)
        if node.op_type in RECURRENT or node.op_type == "ConvTranspose":
            return 1
        if node.op_type == "Conv":
            return 0
        if node.op_type == "Gemm":
            return 0 if _attribute(node, "transB", 0) else 1
        return 1 if at == 1 and rank == 2 else None

    def _has_plain_bias(self, node: Any, axis: int | None) -> bool:
        """Whether a constant is added to the sums of products as they are, one value a channel."""
        if len(node.input) < 3 or node.input[2] not in self._constants or axis is None:
            return False
        channels = self._constants[node.input[1]].dims[axis]
        plain = _attribute(node, "alpha", 1.0) == _attribute(node, "beta", 1.0) == 1
        return plain and node.op_type != "ConvTranspose" and list(self._constants[node.input[2]].dims) == [channels]

    def _weight(
        self, name: str, axis: int | None, *, bias: np.ndarray | None = None, input_scale: float = 0.0
    ) -> tuple[str, np.ndarray]:
        """Name of the dequantized weight, and its scales."""
        codes, scales = quantize_weight(self._array(name), axis, bias=bias, input_scale=input_scale)
        inputs = [self._constant(codes), self._constant(scales), self._constant(np.zeros(scales.shape, np.int8))]
        attributes = {} if axis is None else {"axis": axis}
        decoded = self._name(name)
        self._nodes.append(self._onnx.helper.make_node("DequantizeLinear", inputs, [decoded], **attributes))
        return decoded, scales

    def _bias(self, bias: np.ndarray, scales: np.ndarray) -> str:
        scales = np.broadcast_to(scales, bias.shape)
        decoded = self._name("bias")
        inputs = [self._constant(quantize_bias(bias, scales)), self._constant(scales)]
        self._nodes.append(self._onnx.helper.make_node("DequantizeLinear", inputs, [decoded], axis=0))
        return decoded

    def _half(self, name: str) -> str:
        weight = self._array(name)
        if np.abs(weight).max(initial=0.0) > LARGEST_HALF:
            return name
        decoded = self._name(name)
        stored = self._constant(weight.astype(np.float16))
        self._nodes.append(self._onnx.helper.make_node("Cast", [stored], [decoded], to=self._onnx.TensorProto.FLOAT))
        return decoded

    def _pair(self, name: str) -> str:
        """Name of the tensor rounded to codes."""
        if name in self._rounded:
            return name
        if name not in self._pairs:
            rounded = self._name(name)
            self._nodes.extend(self._pair_nodes(name, rounded, self._parameters(name)))
            self._pairs[name] = rounded
        return self._pairs[name]

    def _pair_nodes(self, source: str, result: str, parameters: tuple[np.float32, np.uint8]) -> list[Any]:
        codes = self._name(source)
        constants = [self._constant(np.asarray(each)) for each in parameters]
        helper = self._onnx.helper
        return [
            helper.make_node("QuantizeLinear", [source, *constants], [codes]),
            helper.make_node("DequantizeLinear", [codes, *constants], [result]),
        ]

    def _parameters(self, name: str) -> tuple[np.float32, np.uint8]:
        return activation_parameters(*self._ranges[origin(self._producers, name)])

    def _array(self, name: str) -> np.ndarray:
        array: np.ndarray = self._onnx.numpy_helper.to_array(self._constants[name])
        return array

    def _constant(self, value: np.ndarray) -> str:
        """Name of a constant with that value; equal ones are stored once.

        ONNX Runtime replaces signed codes by unsigned ones in every operator that reads them
        (session.x64quantprecision), and fails where two read the same. Each later reader gets a reshaped copy, folded
        when the model is loaded; the shape is written in another way each time, else the copies would be merged again.
        """
        key = value.dtype.str.encode() + repr(value.shape).encode() + value.tobytes()
        stored = self._shared.get(key)
        if stored is not None and value.dtype != np.int8:
            return stored
        spelling = next(self._spellings.setdefault(key, _spellings(value.shape)), None)
        if stored is not None and value.nbytes > SMALLEST_SHARED and spelling is not None:
            copy = self._name("constant")
            shape = self._initializer(np.array(spelling, np.int64))
            self._nodes.append(self._onnx.helper.make_node("Reshape", [stored, shape], [copy]))
            return copy
        self._shared[key] = name = self._initializer(value)
        return name

    def _initializer(self, value: np.ndarray) -> str:
        name = self._name("constant")
        tensor = self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        if value.ndim == 0:
            del tensor.dims[:]
        self._graph.initializer.append(tensor)
        return name

    def _name(self, base: str) -> str:
        return f"{base}/{self._mode}{next(self._numbers)}"


def _spellings(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Ways to write the same shape for Reshape, where 0 keeps a size and one −1 stands for what is left."""
    for written in product(*((size, 0) for size in shape)):
        yield written
        yield from ((*written[:at], -1, *written[at + 1 :]) for at in range(len(shape)) if written[at])


def _attribute(node: Any, name: str, default: float) -> float:
    onnx = load_tool("onnx")
    for each in node.attribute:
        if each.name == name:
            return float(onnx.helper.get_attribute_value(each))
    return default


def _drop_unused(graph: Any) -> None:
    """Remove initializers that nothing reads any more, at every depth."""
    used = {name for each in graphs_of(graph) for node in each.node for name in node.input}
    used |= {value.name for each in graphs_of(graph) for value in each.output}
    for each in graphs_of(graph):
        kept = [tensor for tensor in each.initializer if tensor.name in used]
        if len(kept) < len(each.initializer):
            copies = [type(tensor)() for tensor in kept]
            for copy, tensor in zip(copies, kept, strict=True):
                copy.CopyFrom(tensor)
            del each.initializer[:]
            each.initializer.extend(copies)
