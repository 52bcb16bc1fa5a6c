"""report.json: what `convert` made, so that `pack` can run later, in another process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from converters.artifact import ConvertedArtifact
from converters.errors import InvalidRequest
from converters.sources.base import Source
from edge_runtime.bundle import TensorSpec

__all__ = ["REPORT_FILE", "Report", "read_report", "report_dict", "write_report"]

REPORT_FILE = "report.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The source's name, tensors and number of parameters, and the artifacts made from it."""

    source: str
    parameters: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    artifacts: tuple[ConvertedArtifact, ...]

    @classmethod
    def of(cls, source: Source, artifacts: list[ConvertedArtifact]) -> Report:
        return cls(
            source=source.name,
            parameters=source.parameters,
            inputs=source.inputs,
            outputs=source.outputs,
            artifacts=tuple(artifacts),
        )


def report_dict(report: Report) -> dict[str, Any]:
    """As JSON writes it, with files by name."""
    artifacts = []
    for artifact in report.artifacts:
        values = asdict(artifact)
        values["file"] = values.pop("path").name
        artifacts.append(values)
    return {
        "format": FORMAT,
        "source": report.source,
        "parameters": report.parameters,
        "inputs": [asdict(spec) for spec in report.inputs],
        "outputs": [asdict(spec) for spec in report.outputs],
        "artifacts": artifacts,
    }


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.json`` beside the artifacts."""
    path = Path(folder) / REPORT_FILE
    path.write_text(json.dumps(report_dict(report), indent=1) + "\n", encoding="utf-8")
    return path


def read_report(folder: Path) -> Report:
    """The report in a folder that `convert` wrote. Raises `InvalidRequest` if there is none, or a file is missing."""
    path = Path(folder) / REPORT_FILE
    if not path.is_file():
        raise InvalidRequest(f"{folder} holds no {REPORT_FILE}; run edgeship-convert convert first")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise InvalidRequest(f"{path} has format {values['format']}, this version reads {FORMAT}")
        report = Report(
            source=values["source"],
            parameters=values["parameters"],
            inputs=tuple(_spec(each) for each in values["inputs"]),
            outputs=tuple(_spec(each) for each in values["outputs"]),
            artifacts=tuple(_artifact(each, Path(folder)) for each in values["artifacts"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path} is damaged ({error!r}); convert again") from error
    for artifact in report.artifacts:
        if not artifact.path.is_file():
            raise InvalidRequest(f"{artifact.path} is missing; convert again")
    return report


def _spec(values: dict[str, Any]) -> TensorSpec:
    spread = None if values["range"] is None else tuple(values["range"])
    return TensorSpec(**{**values, "shape": tuple(values["shape"]), "range": spread})


def _artifact(values: dict[str, Any], folder: Path) -> ConvertedArtifact:
    values = {**values, "path": folder / Path(values["file"]).name}
    for name in ("operators", "float_operators"):
        values[name] = tuple(values[name])
    return ConvertedArtifact(**{each.name: values[each.name] for each in fields(ConvertedArtifact)})
