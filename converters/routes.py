"""Which way leads from each kind of source to each target: the support matrix as data, and the way itself.

Every route ends in a float32 file of the target; quantization starts from that file, whatever made it. What has no
route is refused before any work starts, with the way around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from converters.errors import UnsupportedModel, UnsupportedOperator
from converters.progress import Say
from converters.sources.base import Kind

__all__ = ["NO_ROUTE", "ROUTES", "FloatModel", "Route", "find_route", "make_float", "refuse_unsupported"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``tools`` in the order of their use; ``environment`` names the helper environment they run in, None for this."""

    source: Kind
    target: str
    tools: tuple[str, ...]
    environment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """A float32 file of a target; ``notes`` is what a reader of the report should know of how it was made."""

    data: bytes
    notes: tuple[str, ...] = ()


ROUTES: tuple[Route, ...] = (
    Route(source="keras", target="onnx", tools=("tf2onnx",)),
    Route(source="keras", target="tflite", tools=("TFLiteConverter",)),
    Route(source="keras", target="coreml", tools=("coremltools",)),
    Route(source="savedmodel", target="onnx", tools=("tf2onnx",)),
    Route(source="savedmodel", target="tflite", tools=("TFLiteConverter",)),
    Route(source="savedmodel", target="coreml", tools=("coremltools",)),
    Route(source="onnx", target="onnx", tools=("onnx",)),
    Route(source="onnx", target="tflite", tools=("onnx2tf",), environment="onnx2tf"),
    Route(source="onnx", target="coreml", tools=("onnx2coreml",)),
    Route(source="torch", target="onnx", tools=("torch.onnx",), environment="torch"),
    Route(source="torch", target="tflite", tools=("litert-torch",), environment="torch"),
    Route(source="torch", target="coreml", tools=("torch.export", "coremltools"), environment="torch"),
    Route(source="sklearn", target="onnx", tools=("skl2onnx",)),
    Route(source="tflite", target="tflite", tools=()),
    Route(source="coreml", target="coreml", tools=()),
)

OLDEST_OPSET = 13  # the first in which a scale can belong to a channel, as INT8 weights need it
DISTIL = "scikit-learn models reach {target} by distillation: edgeship-convert distill, then convert the student"
FINISHED = "a finished {source} file is passed through to {source} only; convert from the model that it was made of"
NO_ROUTE: dict[tuple[Kind, str], str] = {
    ("sklearn", "tflite"): DISTIL,
    ("sklearn", "coreml"): DISTIL,
    ("tflite", "onnx"): FINISHED,
    ("tflite", "coreml"): FINISHED,
    ("coreml", "onnx"): FINISHED,
    ("coreml", "tflite"): FINISHED,
}


def find_route(kind: Kind, target: str) -> Route:
    """Raises `UnsupportedModel` with the way around where there is no route."""
    for route in ROUTES:
        if (route.source, route.target) == (kind, target):
            return route
    raise UnsupportedModel(NO_ROUTE[kind, target].format(source=kind, target=target))


def make_float(source: Any, target: str, say: Say) -> FloatModel:
    """The source as a float32 file of the target, converted by its route and checked by the target's own rules.

    Raises `UnsupportedOperator`, `UnsupportedModel`, `ConversionFailed`, `CheckFailed`, `ToolMissing`.
    """
    refuse_unsupported(source, target)
    return _MAKERS[source.kind](source, target, say)


def refuse_unsupported(source: Any, target: str) -> None:
    """Raises what would stop the route, where that can be told without converting: `UnsupportedModel` where there is
    no route or the model has an axis that the target cannot hold, `UnsupportedOperator` for an operator."""
    find_route(source.kind, target)
    if source.kind == "onnx":
        from converters.foreign.coverage import unsupported_operators

        for each in unsupported_operators(source.model_bytes, target, source.inputs):
            raise UnsupportedOperator(each.operator, f"it cannot be converted to {target}; {each.way_around}")
    elif target != "onnx" and source.kind in ("keras", "savedmodel", "torch"):
        from converters.targets.tflite import refuse_dynamic

        refuse_dynamic(target, source.inputs)


def _from_tensorflow(source: Any, target: str, say: Say) -> FloatModel:
    from converters.targets import coreml, onnx, tflite

    graph = source.frozen(batch=None if target == "onnx" else 1, lower_control_flow=target == "tflite")
    if target == "onnx":
        return FloatModel(data=onnx.convert_to_onnx(graph, source.inputs, source.outputs))
    if target == "tflite":
        return FloatModel(data=tflite.convert_to_tflite(graph, source.inputs, source.outputs))
    return FloatModel(data=coreml.pack_program(coreml.coreml_program(graph, source.inputs)))


def _from_onnx(source: Any, target: str, say: Say) -> FloatModel:
    return _of_onnx(source.model_bytes, source, target, say)


def _from_sklearn(source: Any, target: str, say: Say) -> FloatModel:
    return _of_onnx(source.to_onnx(), source, target, say)


def _of_onnx(model: bytes, source: Any, target: str, say: Say) -> FloatModel:
    from converters.foreign.onnx_tools import onnx_to_coreml, onnx_to_tflite

    if target == "onnx":
        return _checked_onnx(model)
    if target == "tflite":
        return FloatModel(data=onnx_to_tflite(model, source.inputs, source.outputs, say=_texts(say)))
    return FloatModel(data=onnx_to_coreml(model, source.inputs, source.outputs))


def _checked_onnx(model: bytes) -> FloatModel:
    """The model as it is, if devices can load it; else the same one in a newer opset."""
    from converters.onnx_file import opset_of, upgraded
    from converters.quiet import load_tool, quiet
    from converters.targets.onnx import OPSET, check_onnx

    with quiet("reading the ONNX model"):
        given = load_tool("onnx").load_from_string(model)
    newer = upgraded(given, OLDEST_OPSET, OPSET)
    check_onnx(newer)
    if newer is given:
        return FloatModel(data=model)
    note = f"written in opset {opset_of(given)}, brought to opset {OPSET}"
    return FloatModel(data=newer.SerializeToString(deterministic=True), notes=(note,))


def _from_torch(source: Any, target: str, say: Say) -> FloatModel:
    from converters.foreign import torch_tools

    make = {
        "onnx": torch_tools.torch_to_onnx,
        "tflite": torch_tools.torch_to_tflite,
        "coreml": torch_tools.torch_to_coreml,
    }[target]
    return FloatModel(data=make(source.program, source.inputs, source.outputs, say=_texts(say)))


def _finished(source: Any, target: str, say: Say) -> FloatModel:
    return FloatModel(data=source.data, notes=("passed through as it was given",))


def _texts(say: Say) -> Callable[[str], None]:
    return lambda text: say(text, 0, 0)


_MAKERS: dict[str, Callable[[Any, str, Say], FloatModel]] = {
    "keras": _from_tensorflow,
    "savedmodel": _from_tensorflow,
    "onnx": _from_onnx,
    "torch": _from_torch,
    "sklearn": _from_sklearn,
    "tflite": _finished,
    "coreml": _finished,
}
