"""Edgeship's converters: a trained model in, small measured artifacts and a bundle out.

Importing this package loads nothing heavy; each name below loads its module when first used. `distill` is not among
them, since its module has the same name: ``from converters.distill import distill``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.artifact import ConvertedArtifact
    from converters.confidence import confidence_of, fit_temperature, threshold_for_deferral
    from converters.coreml_reference import CoreMLReference
    from converters.data import Dataset, load_dataset
    from converters.distill import DistillReport, Epoch
    from converters.errors import ConverterError
    from converters.package import Description, Packaged, pack
    from converters.pipeline import convert
    from converters.quantize.recipes import Recipe, load_recipe, recipe_names
    from converters.reference import FeatureSpec
    from converters.report import Report, read_report, write_report
    from converters.sources.base import Source
    from converters.sources.keras import KerasSource

_HOME = {
    "ConvertedArtifact": "artifact",
    "ConverterError": "errors",
    "CoreMLReference": "coreml_reference",
    "Dataset": "data",
    "Description": "package",
    "DistillReport": "distill",
    "Epoch": "distill",
    "FeatureSpec": "reference",
    "KerasSource": "sources.keras",
    "Packaged": "package",
    "Recipe": "quantize.recipes",
    "Report": "report",
    "Source": "sources.base",
    "confidence_of": "confidence",
    "convert": "pipeline",
    "fit_temperature": "confidence",
    "load_dataset": "data",
    "load_recipe": "quantize.recipes",
    "pack": "package",
    "read_report": "report",
    "recipe_names": "quantize.recipes",
    "threshold_for_deferral": "confidence",
    "write_report": "report",
}

__all__ = [
    "ConvertedArtifact",
    "ConverterError",
    "CoreMLReference",
    "Dataset",
    "Description",
    "DistillReport",
    "Epoch",
    "FeatureSpec",
    "KerasSource",
    "Packaged",
    "Recipe",
    "Report",
    "Source",
    "confidence_of",
    "convert",
    "fit_temperature",
    "load_dataset",
    "load_recipe",
    "pack",
    "read_report",
    "recipe_names",
    "threshold_for_deferral",
    "write_report",
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
