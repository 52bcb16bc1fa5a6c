"""The source of a conversion, as the stages refer to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converters.progress import Say
from converters.sources.base import Kind, Source
from edge_runtime.bundle import TensorSpec
from edge_runtime.bundle.manifest import Precision

__all__ = ["SourceInfo", "SourceRef", "fetched", "forget", "keep", "open_ref"]

LIVE, MLFLOW = "live:", "mlflow:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRef:
    """Where a source is: a path, an ``mlflow:`` URI, or a model kept in this process (see `keep`).

    ``signature`` chooses one of a SavedModel; ``axes`` gives dynamic axes of an ONNX model a size, by name.
    """

    where: str
    name: str | None = None
    first_axis: str = "batch"
    signature: str | None = None
    axes: Mapping[str, int] = field(default_factory=dict)
    trust_pickle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a source says of itself. ``precision`` is that of a finished file; a trained model's is fp32."""

    kind: Kind
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    activation: str | None
    precision: Precision = "fp32"

    @classmethod
    def of(cls, source: Source) -> SourceInfo:
        return cls(
            kind=source.kind,
            name=source.name,
            inputs=source.inputs,
            outputs=source.outputs,
            parameters=source.parameters,
            activation=source.activation,
            precision=getattr(source, "precision", "fp32"),
        )


_live: dict[str, Source] = {}


def keep(source: Source) -> SourceRef:
    """A reference to a model object, for stages that run in this process."""
    where = f"{LIVE}{id(source)}"
    _live[where] = source
    return SourceRef(where=where, name=source.name)


def forget(ref: SourceRef) -> None:
    """Let go of a kept model."""
    _live.pop(ref.where, None)


def open_ref(ref: SourceRef) -> Any:
    """The source itself, loaded."""
    if ref.where in _live:
        return _live[ref.where]
    from converters.sources.opening import open_source

    return open_source(
        ref.where,
        trust_pickle=ref.trust_pickle,
        name=ref.name,
        signature=ref.signature,
        first_axis=ref.first_axis,
        axes=ref.axes,
    )


def fetched(ref: SourceRef, into: Path, say: Say) -> SourceRef:
    """With a model that is elsewhere brought here, once for all stages."""
    if not ref.where.startswith(MLFLOW):
        return ref
    from converters.sources.mlflow import mlflow_folder

    return replace(ref, where=str(mlflow_folder(ref.where, into, say=lambda text: say(text, 0, 0))))
