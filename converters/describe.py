"""release.toml: what `pack` needs from a person, as a file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import InvalidRequest
from converters.package import Description
from converters.reference import FeatureSpec
from edge_runtime.bundle import Hybrid, Requirements, TensorSpec

__all__ = ["ReleaseFile", "read_release_file"]

TEXTS = ("owner", "contact", "version", "predicts", "dataset")
OPTIONAL = (
    "in_graph", "caller", "data_version", "collected", "personal_data", "consent_purpose", "retraining", "units",
)  # fmt: skip
LISTS = ("seeds", "known_failures")
OTHER = ("labels", "ranges", "features", "hybrid", "requirements")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """The parts of a release.toml, as `pack` takes them."""

    labels: tuple[str, ...]
    description: Description
    features: tuple[FeatureSpec, ...]
    hybrid: Hybrid | None
    requirements: Requirements


def read_release_file(path: Path) -> ReleaseFile:
    """Read and check a release.toml.

    Keys: ``owner contact version predicts dataset labels`` (all needed), the other fields of `Description`,
    ``[ranges]``, ``[units]``, ``[[features]]`` (name, input, reduce, index), ``[hybrid]`` (model, releases, inputs),
    ``[requirements]`` (arch, os, ram_bytes). Raises `InvalidRequest` with the key that is wrong.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise InvalidRequest(f"{path} is not TOML: {error}") from error
    unknown = sorted(set(values) - {*TEXTS, *OPTIONAL, *LISTS, *OTHER})
    if unknown:
        raise InvalidRequest(f"{path}: unknown keys {', '.join(unknown)}")
    for key in (*TEXTS, "labels"):
        if key not in values:
            raise InvalidRequest(f"{path}: {key} is missing")
    try:
        return _parsed(values)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidRequest(f"{path}: {error!r}") from error


def _parsed(values: dict[str, Any]) -> ReleaseFile:
    hybrid = values.get("hybrid")
    told: dict[str, Any] = {key: values[key] for key in (*TEXTS, *OPTIONAL) if key in values}
    told |= {key: tuple(values[key]) for key in LISTS if key in values}
    told["ranges"] = {name: (float(low), float(high)) for name, (low, high) in values.get("ranges", {}).items()}
    required: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.get("requirements", {}).items()
    }
    return ReleaseFile(
        labels=tuple(str(label) for label in values["labels"]),
        description=Description(**told),
        features=tuple(FeatureSpec(**each) for each in values.get("features", ())),
        hybrid=None if hybrid is None else _hybrid(hybrid),
        requirements=Requirements(**required),
    )


def _hybrid(values: dict[str, Any]) -> Hybrid:
    return Hybrid(
        model=values["model"],
        releases=tuple(values["releases"]),
        inputs=tuple(TensorSpec(**{**each, "shape": tuple(each["shape"])}) for each in values["inputs"]),
    )
