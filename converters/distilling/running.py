"""Train every arm over every seed, and say which run is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.distilling.report import Arm, Kept, Run
from converters.distilling.splits import Say, Split, Warn
from converters.distilling.students import Student
from converters.distilling.training import Lesson, Settings, Trainer, answers_of
from converters.task import Task

__all__ = ["Plan", "Trained", "score", "train_arms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is trained and by what it is judged. ``arms`` are in the order of training, each a lesson of as many rows
    and the weight of its labels."""

    task: Task
    student: Student
    arms: Mapping[Arm, tuple[Lesson, float]]
    validation: Split
    evaluation: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """``model`` is the kept run's student, with its best epoch's weights."""

    runs: tuple[Run, ...]
    kept: Kept
    model: Any


def train_arms(
    plan: Plan,
    seeds: Sequence[int],
    settings: Settings,
    *,
    say: Say,
    warn: Warn,
    clock: Callable[[], float] = time.perf_counter,
) -> Trained:
    """The same seeds for every arm. Warns between them when the teacher is no better than labels alone."""
    runs: list[Run] = []
    best: dict[Arm, tuple[float, list[np.ndarray]]] = {}
    first = next(iter(plan.arms.values()))[0]
    rows, outputs = first.answers.shape
    model = plan.student.build(seeds[0])
    trainer = Trainer(model, settings, rows=rows, outputs=outputs, regression=first.regression)

    def scored(split: Split) -> float:
        return score(plan.task, split, answers_of(model, split.data.inputs))

    for arm, (lesson, alpha) in plan.arms.items():
        if runs:
            _gate(runs, plan, warn)
        for seed in seeds:
            say(_doing(arm, seed, seeds), len(runs), len(plan.arms) * len(seeds))
            trained = trainer.train(
                lesson,
                alpha=alpha,
                seed=seed,
                start=plan.student.build(seed),
                validate=lambda: scored(plan.validation),
                clock=clock,
            )
            reached = scored(plan.validation)
            runs.append(
                Run(
                    arm=arm,
                    seed=seed,
                    validation=reached,
                    evaluation=scored(plan.evaluation),
                    best_epoch=trained.best_epoch,
                    seconds=trained.seconds,
                )
            )
            if arm not in best or reached > best[arm][0]:
                best[arm] = (reached, model.get_weights())
    kept = _kept(runs)
    model.set_weights(best[kept.arm][1])
    return Trained(runs=tuple(runs), kept=kept, model=model)


def score(task: Task, split: Split, answers: np.ndarray) -> float:
    """Accuracy or R² where the truth is known, else agreement with the teacher."""
    truth, made = split.truth(task), {task.output: answers}
    if truth is not None:
        return task.accuracy(made, truth)
    return task.agreement({task.output: split.answers}, made)


def _gate(runs: Sequence[Run], plan: Plan, warn: Warn) -> None:
    """Say before the distilled arm is trained that its teacher has nothing to teach."""
    alone = float(np.mean([run.validation for run in runs]))
    if plan.validation.truth(plan.task) is None:
        return
    teacher = score(plan.task, plan.validation, plan.validation.answers)
    if teacher <= alone:
        warn(
            f"on validation data the teacher reaches {teacher:.4f} and the student from labels alone {alone:.4f}: a "
            "teacher that is no better rarely helps"
        )


def _kept(runs: Sequence[Run]) -> Kept:
    """The arm whose mean validation score is higher (distilled, if they are equal), and its best seed."""
    means = {
        arm: float(np.mean([run.validation for run in runs if run.arm == arm])) for arm in {run.arm for run in runs}
    }
    arm: Arm = "labels" if means.get("labels", -np.inf) > means["distilled"] else "distilled"
    best = max((run for run in runs if run.arm == arm), key=lambda run: run.validation)
    why = f"best validation score ({best.validation:.4f}) of its arm"
    if len(means) > 1:
        why += f"; mean validation: distilled {means['distilled']:.4f}, labels alone {means['labels']:.4f}"
    return Kept(arm=arm, seed=best.seed, why=why)


def _doing(arm: Arm, seed: int, seeds: Sequence[int]) -> str:
    return f"training {'distilled' if arm == 'distilled' else 'from labels alone'}, seed {seed} of {list(seeds)}"
