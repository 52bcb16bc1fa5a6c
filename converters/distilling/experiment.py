"""Train both arms over several seeds, and keep the student that validation chose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from converters.data import Dataset
from converters.distilling.comparing import compare, spread
from converters.distilling.latency import Latency
from converters.distilling.macs import count_macs
from converters.distilling.report import Arm, DistillingReport, Rows, StudentFacts, TeacherFacts
from converters.distilling.running import Plan, score, train_arms
from converters.distilling.splits import Say, Warn, answered, check_truth, held_out, lessons, warn_of_shared
from converters.distilling.students import Student, check_inputs, check_student
from converters.distilling.teachers import open_teacher
from converters.distilling.training import Lesson, Settings
from converters.errors import InvalidRequest, UnsupportedModel
from converters.evaluate import machine
from converters.task import Task, TaskKind

__all__ = ["Outcome", "distil_over_seeds"]

Choose = Callable[[dict[str, np.ndarray], int, np.ndarray | None], Student]

PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "scikit-learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The report, and the student that was kept, a `keras.Model` with its best epoch's weights."""

    report: DistillingReport
    model: Any


def distil_over_seeds(
    teacher: Any,
    student: Student | Choose,
    training: Dataset,
    *,
    evaluation: Dataset,
    pool: Dataset | None = None,
    validation: Dataset | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    settings: Settings | None = None,
    latency: Callable[[Any], Latency] | None = None,
    say: Say = lambda _text, _done, _total: None,
    warn: Warn = lambda _text: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Distil ``student`` from ``teacher`` (a source, a Keras model or a function) once for every seed.

    ``training`` may have labels (targets: then it is a regression); ``pool`` is answered by the teacher alone.
    Validation rows choose the epoch, the arm and the seed; without ``validation`` a fifth of ``training`` is held out
    for it, whole groups where there are groups. ``evaluation`` is used once, at the end. ``student`` may be a function
    of inputs, number of outputs and, for regression, answers, that chooses one (see `choosing`).

    The labels-only arm sees its rows as often as it takes to make as many updates as the distilled arm makes.

    Raises `DataError`, `UnsupportedModel`, `InvalidRequest`.
    """
    started = clock()
    settings = settings or Settings()
    settings.check()
    if not seeds or len(set(seeds)) != len(seeds):
        raise InvalidRequest(f"seeds must be different numbers, at least one, not {list(seeds)}")
    warnings: list[str] = []

    def caution(text: str) -> None:
        warnings.append(text)
        warn(text)

    regression = training.targets is not None or evaluation.targets is not None
    opened = open_teacher(teacher, regression=regression)
    if opened.caution is not None and settings.temperature >= 1:
        caution(opened.caution)
    optional = {"pool": pool, "validation": validation, "evaluation": evaluation}
    given = {"training": training} | {name: data for name, data in optional.items() if data is not None}
    splits = answered(opened, given, say)
    outputs = splits["training"].answers.shape[1]
    kind: TaskKind = "regression" if regression else "classification"
    task = Task(kind=kind, output="out", classes=0 if regression else outputs)
    check_truth(splits, task)
    warn_of_shared(splits, caution)
    taught, held, by_group = held_out(splits, caution)
    lesson, labelled = lessons(taught, splits.get("pool"), task)

    if not isinstance(student, Student):
        say("choosing a student of the family", 0, 1)
        student = student(dict(lesson.inputs), outputs, lesson.answers if regression else None)
    probe = student.build(seeds[0])
    check_student(probe, outputs=outputs, regression=regression)
    check_inputs(probe, lesson.inputs)
    known = task.truth(splits["evaluation"].data) is not None
    arms = _arms(lesson, labelled if known else None, settings.alpha if labelled is not None else 0.0)
    if len(arms) == 1:
        where = "training" if labelled is None else "evaluation"
        caution(f"the {where} data has no labels, so there is no comparison with a student from labels alone")

    plan = Plan(task=task, student=student, arms=arms, validation=held, evaluation=splits["evaluation"])
    trained = train_arms(plan, seeds, settings, say=say, warn=caution, clock=clock)
    by_arm = {arm: [run.evaluation for run in trained.runs if run.arm == arm] for arm in arms}
    both = {name: score(task, split, split.answers) if split.truth(task) is not None else None
            for name, split in (("validation", held), ("evaluation", plan.evaluation))}  # fmt: skip
    rows_labelled = 0 if labelled is None else taught.data.rows
    report = DistillingReport(
        metric=("r2" if regression else "accuracy") if known else "agreement",
        teacher=TeacherFacts(name=opened.name, kind=opened.kind, parameters=opened.parameters, **both),
        student=StudentFacts(
            name=student.name,
            parameters=int(probe.count_params()),
            macs=_macs(probe),
            latency=None if latency is None else latency(probe),
        ),
        rows=Rows(
            labelled=rows_labelled,
            unlabelled=len(lesson.answers) - rows_labelled,
            validation=held.data.rows,
            evaluation=evaluation.rows,
            validation_from="training" if validation is None else "file",
            groups_split=by_group,
        ),
        settings=settings,
        seeds=tuple(seeds),
        updates=-(-len(lesson.answers) // settings.batch_size) * settings.epochs,
        runs=trained.runs,
        labels=spread(by_arm["labels"]) if "labels" in by_arm else None,
        distilled=spread(by_arm["distilled"]),
        comparison=compare(by_arm["labels"], by_arm["distilled"]) if "labels" in by_arm else None,
        kept=trained.kept,
        warnings=tuple(warnings),
        data={name: data.sha256 for name, data in given.items()},
        packages=_packages(),
        machine=machine(),
        seconds=clock() - started,
    )
    return Outcome(report=report, model=trained.model)


def _arms(lesson: Lesson, labelled: Lesson | None, alpha: float) -> dict[Arm, tuple[Lesson, float]]:
    """Labels alone first, so that it is known what the teacher has to beat before it teaches."""
    alone: dict[Arm, tuple[Lesson, float]] = {} if labelled is None else {"labels": (labelled, 1.0)}
    return {**alone, "distilled": (lesson, alpha)}


def _macs(model: Any) -> int | None:
    try:
        return count_macs(model)
    except UnsupportedModel:
        return None


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found
