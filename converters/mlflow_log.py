"""Log a finished conversion to MLflow: parameters, metrics of every artifact, and the files. Optional."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
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

    Raises `ConversionFailed`, which loses nothing: the bundle is written already.
    """
    report = outcome.report
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where mlflow says where the run can be seen
            mlflow = load_tool("mlflow")
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
    except Exception as error:  # whatever the clients of a tracking server and of an artifact store raise
        what = f"{type(error).__name__}: {error}"
        raise ConversionFailed("logging to MLflow", f"{what}; {outcome.out} is complete, without it") from error
