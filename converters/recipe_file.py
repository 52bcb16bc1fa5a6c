"""A recipe file: what `edgeship-convert run` can be told, as TOML. The command line wins over it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from converters.errors import InvalidRequest
from converters.reference import FeatureSpec
from converters.request import Description
from edge_runtime.bundle import Hybrid, Requirements, TensorSpec

__all__ = ["RecipeFile", "read_recipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFile:
    """What a recipe says. ``options`` are those of the command line, by their Python names, with absolute paths."""

    options: Mapping[str, Any]
    description: Description
    labels: tuple[str, ...] = ()
    features: tuple[FeatureSpec, ...] | None = None
    hybrid: Hybrid | None = None
    requirements: Requirements | None = None
    edge_cases: Mapping[str, Path] | None = None
    axes: Mapping[str, int] | None = None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, not {value!r}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"must be a number, not {value!r}")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"must be a whole number, not {value!r}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be true or false, not {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts, or one."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if not isinstance(value, list):
        raise TypeError(f"must be a list of texts, not {value!r}")
    return tuple(_text(each) for each in value)


def _wholes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError(f"must be a list of whole numbers, not {value!r}")
    return tuple(_whole(each) for each in value)


PATHS = ("calibration", "evaluation", "confidence", "training", "out")
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "source": _text,
    **dict.fromkeys(PATHS, _text),
    "name": _text,
    "release": _whole,
    "targets": _texts,
    "precision": _texts,
    "max_accuracy_drop": _number,
    "quantization": _text,
    "search_seconds": _number,
    "task": _text,
    "target_risk": _number,
    "delta": _number,
    "deferral_share": _number,
    "profile": _text,
    "first_axis": _text,
    "signature": _text,
    "fallback": _flag,
    "peak_memory": _flag,
    "mlflow": _text,
}
# Options that a file cannot hold, and why: who passes the file on is not who runs it.
LINE_ONLY = {
    "trust_pickle": "a pickle can run any code, and only who runs the command can trust its origin: --trust-pickle",
    "overwrite": "a file that replaces what is there would do so on every later run, too: --overwrite",
    "json": "what is printed is for who runs the command: --json",
    "recipe": "a recipe does not contain another",
}
DESCRIPTION: dict[str, Callable[[Any], Any]] = {
    "owner": _text,
    "contact": _text,
    "version": _text,
    "predicts": _text,
    "dataset": _text,
    "in_graph": _text,
    "caller": _text,
    "data_version": _text,
    "collected": _text,
    "trained": _text,
    "personal_data": _flag,
    "consent_purpose": _text,
    "retraining": _text,
    "seeds": _wholes,
    "known_failures": _texts,
    "units": lambda value: {name: _text(unit) for name, unit in value.items()},
    "ranges": lambda value: {name: (_number(low), _number(high)) for name, (low, high) in value.items()},
}
PARTS = ("labels", "features", "hybrid", "requirements", "edge_cases", "axes")


def read_recipe(path: Path) -> RecipeFile:
    """Read and check a recipe. Relative paths in it start from its own folder.

    Raises `InvalidRequest` with the key that is wrong.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise InvalidRequest(f"{path} is not TOML: {error}") from error
    _refuse_unknown(path, values)
    folder = Path(path).resolve().parent
    options = {key: _read(path, key, OPTIONS[key], values[key]) for key in OPTIONS if key in values}
    for key in (*PATHS, "source"):
        if key in options and not options[key].startswith("mlflow:"):
            options[key] = str(folder / options[key])
    if Path(options.get("profile", "")).suffix == ".toml":  # and not the name of one that we have
        options["profile"] = str(folder / options["profile"])
    described = {key: _read(path, key, DESCRIPTION[key], values[key]) for key in DESCRIPTION if key in values}
    return RecipeFile(
        options=options,
        description=Description(**described),
        labels=_read(path, "labels", _texts, values.get("labels", [])),
        features=_read(path, "features", _features, values["features"]) if "features" in values else None,
        hybrid=_read(path, "hybrid", _hybrid, values["hybrid"]) if "hybrid" in values else None,
        requirements=(
            _read(path, "requirements", _requirements, values["requirements"]) if "requirements" in values else None
        ),
        edge_cases=_read(
            path,
            "edge_cases",
            lambda cases: {name: folder / _text(file) for name, file in cases.items()},
            values.get("edge_cases", {}),
        ),
        axes=_read(
            path, "axes", lambda axes: {name: _whole(size) for name, size in axes.items()}, values.get("axes", {})
        ),
    )


def _refuse_unknown(path: Path, values: Mapping[str, Any]) -> None:
    for key, why in LINE_ONLY.items():
        if key in values:
            raise InvalidRequest(f"{path}: {key} has its place on the command line alone: {why}")
    known = sorted({*OPTIONS, *DESCRIPTION, *PARTS})
    unknown = sorted(set(values) - set(known))
    if unknown:
        near = (difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1) for key in unknown)
        said = (f"{key} (did you mean {each[0]}?)" if each else key for key, each in zip(unknown, near, strict=True))
        raise InvalidRequest(f"{path}: unknown keys {', '.join(said)}; there are {', '.join(known)}")


def _read(path: Path, key: str, reader: Callable[[Any], Any], value: Any) -> Any:
    try:
        return reader(value)
    except KeyError as error:
        raise InvalidRequest(f"{path}: {key} lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(f"{path}: {key}: {error}") from error


def _features(value: Any) -> tuple[FeatureSpec, ...]:
    return tuple(FeatureSpec(**_known(each, FeatureSpec)) for each in value)


def _hybrid(value: Any) -> Hybrid:
    value = _known(value, Hybrid)
    return Hybrid(
        model=_text(value["model"]),
        releases=_wholes(value["releases"]),
        inputs=tuple(
            TensorSpec(**{**_known(each, TensorSpec), "shape": tuple(each["shape"])}) for each in value["inputs"]
        ),
    )


def _requirements(value: Any) -> Requirements:
    value = _known(value, Requirements)
    return Requirements(**{key: tuple(each) if isinstance(each, list) else each for key, each in value.items()})


def _known(value: Any, kind: type) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"must be a table, not {value!r}")
    unknown = set(value) - {each.name for each in fields(kind)}
    if unknown:
        raise TypeError(f"unknown keys {', '.join(sorted(unknown))}")
    return value
