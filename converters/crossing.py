"""Jobs, results and errors as JSON, for the way between two processes."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from converters import errors
from converters.errors import ConversionFailed, ConverterError
from converters.quiet import load_tool
from edge_runtime import errors as device_errors
from edge_runtime.bundle.errors import EdgeshipError

__all__ = ["error_from_json", "error_to_json", "from_json", "stage_module", "to_json"]

T = TypeVar("T")


def stage_module(stage: str) -> ModuleType:
    """The module of a stage: one of `converters.stages`, or any other by its dotted name."""
    return import_module(stage if "." in stage else f"converters.stages.{stage}")


@cache
def _converter() -> Any:
    cattrs, strategies = load_tool("cattrs"), load_tool("cattrs.strategies")
    converter = cattrs.Converter(forbid_extra_keys=True)
    strategies.configure_union_passthrough(str | int | float | bool | None, converter)
    return converter


def to_json(value: Any) -> str:
    """A dataclass as text. NaN and infinity keep their JavaScript names."""
    return json.dumps(_converter().unstructure(value))


def from_json(text: str, kind: type[T]) -> T:
    """The dataclass back from its text. Raises `ConversionFailed` for what is none of this kind."""
    converter = _converter()
    try:
        result: T = converter.structure(json.loads(text), kind)
        return result
    except (load_tool("cattrs").BaseValidationError, ValueError, TypeError, KeyError) as error:
        raise ConversionFailed("reading a stage's answer", f"{kind.__name__}: {error}") from error


def error_to_json(error: BaseException) -> str:
    """Type, text and the plain attributes of one of our errors."""
    fields = {name: value for name, value in vars(error).items() if isinstance(value, str)}
    return json.dumps({"type": type(error).__name__, "message": str(error), "fields": fields})


def error_from_json(text: str) -> EdgeshipError:
    """The error again; one whose type is not ours becomes `ConverterError`."""
    values = json.loads(text)
    kinds = (getattr(module, values["type"], None) for module in (errors, device_errors))
    kind = next((each for each in kinds if isinstance(each, type) and issubclass(each, EdgeshipError)), None)
    if kind is None:
        return ConverterError(f"{values['type']}: {values['message']}")
    error = kind.__new__(kind)
    EdgeshipError.__init__(error, values["message"])
    for name, value in values["fields"].items():
        setattr(error, name, value)
    return error
