"""What one conversion is asked for: the same thing from the command line, from a recipe file, or from Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from converters.data import Dataset
from converters.errors import InvalidRequest
from converters.quantize.recipes import load_recipe, recipe_names
from converters.reference import FeatureSpec
from converters.sources.base import Source
from converters.stages.choosing import ConfidenceRule
from converters.targets import PRECISIONS, TARGETS
from converters.task import TaskKind
from edge_runtime.bundle import Hybrid, Requirements, check_model, check_release
from edge_runtime.bundle.manifest import Precision, Target

__all__ = ["Data", "Description", "Request", "check_request"]

Data = Dataset | Path | str
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What only a person knows about a model. ``units`` and ``ranges`` are by input name; a range that is not given is
    what the training data shows."""

    owner: str = NOT_STATED
    contact: str = NOT_STATED
    version: str = ""
    predicts: str = ""
    dataset: str = ""
    in_graph: str = ""
    caller: str = ""
    data_version: str | None = None
    collected: str | None = None
    trained: str | None = None
    personal_data: bool | None = None  # not stated counts as yes
    consent_purpose: str | None = None
    seeds: tuple[int, ...] = ()
    known_failures: tuple[str, ...] = ()
    retraining: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A source and its data, and what to make of them.

    ``evaluation`` is used once, for the gate: an artifact that loses more than ``max_accuracy_drop`` there (of
    accuracy, R², or agreement where there are no labels) is left out. ``calibration`` gives the ranges for ``int8``,
    and its held-out part steers the search for what must stay float; ``confidence`` is a labelled split for temperature
    and threshold; ``training`` gives ranges and telemetry reference, and is the calibration data where it is not given.

    ``search_seconds`` is how long the search for what must stay in float goes on in each precision, in seconds;
    ``fallback`` allows the next precision where one cannot hold the limit. ``labels`` names the classes, ``features``
    what devices count (None: chosen from the inputs' shapes). ``profile`` names a device whose budgets must hold.
    ``task`` says what the model is for where its shapes and data cannot tell. ``signature`` chooses one of a
    SavedModel, ``axes`` gives dynamic axes of an ONNX model a size, by name.
    """

    source: Source | Path | str
    name: str
    release: int
    out: Path
    evaluation: Data
    calibration: Data | None = None
    confidence: Data | None = None
    training: Data | None = None
    edge_cases: Mapping[str, Data] = field(default_factory=dict)
    targets: tuple[Target, ...] = TARGETS
    precisions: tuple[Precision, ...] = ("int8",)
    max_accuracy_drop: float = 0.01
    quantization: str | None = None
    search_seconds: float = 300.0
    task: TaskKind | None = None
    fallback: bool = True
    rule: ConfidenceRule = field(default_factory=ConfidenceRule)
    labels: tuple[str, ...] = ()
    description: Description = field(default_factory=Description)
    features: tuple[FeatureSpec, ...] | None = None
    hybrid: Hybrid | None = None
    requirements: Requirements | None = None
    profile: str | None = None
    first_axis: str = "batch"
    signature: str | None = None
    axes: Mapping[str, int] = field(default_factory=dict)
    trust_pickle: bool = False
    peak_memory: bool = True
    mlflow: str | None = None
    overwrite: bool = False


def check_request(request: Request) -> None:
    """Raises `InvalidRequest`, and `InvalidName` for a name or number that the bundle's format does not allow."""
    check_model(request.name)
    check_release(request.release)
    for given, known, what in ((request.targets, TARGETS, "target"), (request.precisions, PRECISIONS, "precision")):
        if not given:
            raise InvalidRequest(f"no {what} was asked for; there are {', '.join(known)}")
        for each in given:
            if each not in known:
                raise InvalidRequest(f"no {what} {each!r} in this version; there are {', '.join(known)}")
    if request.task is not None and request.task not in get_args(TaskKind):
        raise InvalidRequest(f"no task {request.task!r}; there are {', '.join(get_args(TaskKind))}")
    if not 0 <= request.max_accuracy_drop <= 1:
        raise InvalidRequest(f"max_accuracy_drop is a share between 0 and 1, not {request.max_accuracy_drop}")
    if not 0 <= request.search_seconds < math.inf:
        raise InvalidRequest(f"search_seconds is 0 or more, not {request.search_seconds}")
    if request.quantization is not None and request.quantization not in recipe_names():
        raise InvalidRequest(f"no quantization {request.quantization!r}; there are {', '.join(recipe_names())}")
    if request.quantization is not None:
        precision = load_recipe(request.quantization).precision
        if set(request.precisions) - {"fp32", precision}:
            raise InvalidRequest(
                f"quantization {request.quantization} makes {precision}, not {', '.join(request.precisions)}"
            )
    rule = request.rule
    if not 0 < rule.target_risk < 1 or not 0 < rule.delta < 1:
        raise InvalidRequest("target_risk and delta are shares between 0 and 1, both ends excluded")
    if rule.deferral_share is not None and not 0 <= rule.deferral_share <= 1:
        raise InvalidRequest(f"deferral_share is between 0 and 1, not {rule.deferral_share}")
    if request.calibration is None and needs_calibration(request):
        raise InvalidRequest(
            f"{', '.join(request.precisions)} needs calibration data (--calibration c.npz): rows of real inputs that "
            "are not the evaluation rows; at least 8, better some hundreds"
        )


def needs_calibration(request: Request) -> bool:
    """Whether anything asked for is quantized, and so is searched for on calibration rows."""
    return any(precision != "fp32" for precision in request.precisions)
