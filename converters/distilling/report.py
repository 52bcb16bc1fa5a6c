"""What a distillation came to, as data: ``distill.json`` is this."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from converters.distilling.comparing import Comparison, Spread
from converters.distilling.latency import Latency
from converters.distilling.training import Settings

__all__ = ["Arm", "DistillingReport", "Kept", "Rows", "Run", "StudentFacts", "TeacherFacts", "report_dict"]

Arm = Literal["labels", "distilled"]
Metric = Literal["accuracy", "r2", "agreement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherFacts:
    """``validation`` and ``evaluation`` are its own scores; None where there are no labels."""

    name: str
    kind: str
    parameters: int | None
    validation: float | None
    evaluation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFacts:
    """``macs`` are multiply-adds for one row; None where a layer cannot be counted."""

    name: str
    parameters: int
    macs: int | None
    latency: Latency | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How many rows of each kind, and where the validation rows are from."""

    labelled: int
    unlabelled: int
    validation: int
    evaluation: int
    validation_from: Literal["file", "training"]
    groups_split: bool  # no group is on both sides of a held-out validation split


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training. ``validation`` chose ``best_epoch``; ``evaluation`` chose nothing."""

    arm: Arm
    seed: int
    validation: float
    evaluation: float
    best_epoch: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Which run's student was written, and why; by validation, never by evaluation."""

    arm: Arm
    seed: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillingReport:
    """``metric`` is accuracy, R² for regression, or agreement with the teacher where the evaluation has no labels.

    ``labels`` and ``comparison`` are None without labels to learn from. Both arms have the same student, seeds and
    ``updates`` (steps of the optimizer for each training).
    """

    metric: Metric
    teacher: TeacherFacts
    student: StudentFacts
    rows: Rows
    settings: Settings
    seeds: tuple[int, ...]
    updates: int
    runs: tuple[Run, ...]
    labels: Spread | None
    distilled: Spread
    comparison: Comparison | None
    kept: Kept
    warnings: tuple[str, ...]
    data: dict[str, str]  # split → sha256 of its arrays
    packages: dict[str, str]
    machine: str
    seconds: float


def report_dict(report: DistillingReport) -> dict[str, Any]:
    """Plain values for JSON."""
    return asdict(report)
