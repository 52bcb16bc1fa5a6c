"""Log a finished conversion to MLflow: parameters, metrics of every artifact, and the files. Optional."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from converters.errors import ConversionFailed, ToolMissing
from converters.quiet import load_tool
from converters.report import REPORT_FILE

if TYPE_CHECKING:
    from converters.pipeline import Outcome

__all__ = ["check_mlflow", "log_run"]

METRICS = ("accuracy", "source_accuracy", "drop", "decision_agreement", "max_abs_error", "int8_weight_share", "bytes",
           "source_bytes", "p50_us", "peak_memory_bytes")  # fmt: skip


def check_mlflow() -> None:
    """Raises `ToolMissing` before any work is done for a log that cannot be written."""
    if importlib.util.find_spec("mlflow") is None:
        raise ToolMissing("--mlflow needs the package mlflow: pip install mlflow (mlflow-skinny will do)")


def log_run(outcome: Outcome, experiment: str) -> str:
    """Log to the tracking server that MLFLOW_TRACKING_URI names; returns the run's id.

    The bundle is written already, so a server that does not answer is an error that loses nothing: `ConversionFailed`.
    """
    mlflow = load_tool("mlflow")
    report = outcome.report
    try:
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=f"{report.name}-{report.release}") as run:
            mlflow.log_params(
                {
                    "name": report.name,
                    "release": report.release,
                    "source": report.source.kind,
                    "parameters": report.source.parameters,
                    "max_accuracy_drop": report.max_accuracy_drop,
                    **{f"rows.{split}": each.rows for split, each in report.splits.items()},
                }
            )
            for row in report.artifacts:
                for name in METRICS:
                    value = getattr(row, name)
                    if value is not None:
                        mlflow.log_metric(f"{row.target}.{row.precision}.{name}", float(value))
                mlflow.set_tag(f"{row.target}.{row.asked}.status", row.status)
            mlflow.log_artifact(str(outcome.out / REPORT_FILE))
            if outcome.bundle is not None:
                mlflow.log_artifact(str(outcome.bundle.path))
            return str(run.info.run_id)
    except mlflow.exceptions.MlflowException as error:
        raise ConversionFailed("logging to MLflow", f"{error}; the bundle in {outcome.out} is complete") from error
