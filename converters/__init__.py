"""Edgeship's converters: a trained model in, small measured artifacts and a bundle out.

Importing this package loads nothing heavy; each name below loads its module when first used. `distill` is not among
them, since its module has the same name: ``from converters.distill import distill``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.bundling import Bundled
    from converters.confidence import choose_confidence, confidence_of, fit_temperature, threshold_for_deferral
    from converters.coreml_reference import CoreMLReference
    from converters.data import Dataset, load_dataset
    from converters.distill import DistillReport, Epoch
    from converters.errors import ConverterError
    from converters.pipeline import Outcome, run
    from converters.quantize.recipes import Recipe, load_recipe, recipe_names
    from converters.recipe_file import read_recipe
    from converters.reference import FeatureSpec
    from converters.report import Report, Row, read_report
    from converters.request import Description, Request
    from converters.sources.base import Source
    from converters.sources.keras import KerasSource
    from converters.sources.opening import open_source
    from converters.stages.choosing import ConfidenceRule

_HOME = {
    "Bundled": "bundling",
    "ConfidenceRule": "stages.choosing",
    "ConverterError": "errors",
    "CoreMLReference": "coreml_reference",
    "Dataset": "data",
    "Description": "request",
    "DistillReport": "distill",
    "Epoch": "distill",
    "FeatureSpec": "reference",
    "KerasSource": "sources.keras",
    "Outcome": "pipeline",
    "Recipe": "quantize.recipes",
    "Report": "report",
    "Request": "request",
    "Row": "report",
    "Source": "sources.base",
    "choose_confidence": "confidence",
    "confidence_of": "confidence",
    "fit_temperature": "confidence",
    "load_dataset": "data",
    "load_recipe": "quantize.recipes",
    "open_source": "sources.opening",
    "read_recipe": "recipe_file",
    "read_report": "report",
    "recipe_names": "quantize.recipes",
    "run": "pipeline",
    "threshold_for_deferral": "confidence",
}

__all__ = [
    "Bundled",
    "ConfidenceRule",
    "ConverterError",
    "CoreMLReference",
    "Dataset",
    "Description",
    "DistillReport",
    "Epoch",
    "FeatureSpec",
    "KerasSource",
    "Outcome",
    "Recipe",
    "Report",
    "Request",
    "Row",
    "Source",
    "choose_confidence",
    "confidence_of",
    "fit_temperature",
    "load_dataset",
    "load_recipe",
    "open_source",
    "read_recipe",
    "read_report",
    "recipe_names",
    "run",
    "threshold_for_deferral",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
