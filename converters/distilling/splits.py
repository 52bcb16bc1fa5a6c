"""The files of a distillation: checked, answered by the teacher once, and cut into what is taught and what chooses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from converters.data import Dataset, check_dataset
from converters.distilling.teachers import Teacher
from converters.distilling.training import Lesson
from converters.errors import LabelMismatch, TooLittleData, UnsupportedModel
from converters.splitting import split_rows
from converters.task import Task
from edge_runtime.bundle import TensorSpec

__all__ = [
    "VALIDATION_SHARE",
    "Say",
    "Split",
    "Warn",
    "answered",
    "check_truth",
    "held_out",
    "lessons",
    "warn_of_shared",
]

Say = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
Warn = Callable[[str], None]

VALIDATION_SHARE = 0.2  # of the training rows, where no validation data is given
FEW = 50  # validation or evaluation rows below which a score scatters by several points


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Rows with the teacher's answers, and the truth to score by: labels, targets, or else the answers."""

    data: Dataset
    answers: np.ndarray

    def truth(self, task: Task) -> np.ndarray | None:
        return task.truth(self.data)


def answered(teacher: Teacher, given: Mapping[str, Dataset], say: Say) -> dict[str, Split]:
    """Every split checked against the teacher's inputs, with the teacher's answers, asked once."""
    expected = teacher.inputs or _inputs_like(given["training"])
    splits = {}
    for index, (name, data) in enumerate(given.items()):
        say(f"asking the teacher for {name}", index, len(given))
        checked = check_dataset(data, expected)
        splits[name] = Split(data=checked, answers=teacher.answer(checked.inputs))
    widths = {name: split.answers.shape[1] for name, split in splits.items()}
    if len(set(widths.values())) > 1:
        raise UnsupportedModel(f"the teacher answers with a different number of values to each file: {widths}")
    return splits


def _inputs_like(data: Dataset) -> tuple[TensorSpec, ...]:
    """Specs that the other files must have, where the teacher is a function: those of the training data."""
    return tuple(
        TensorSpec(
            name=name,
            dtype="float32" if array.dtype.kind == "f" else str(array.dtype),
            shape=("batch", *array.shape[1:]),
        )
        for name, array in data.inputs.items()
    )


def check_truth(splits: Mapping[str, Split], task: Task) -> None:
    for name, split in splits.items():
        data = split.data
        if task.kind == "regression":
            targets = data.targets
            if targets is not None and targets.size != split.answers.size:
                raise LabelMismatch(
                    f"{data.name}: target has shape {targets.shape}, the teacher answers {split.answers.shape}"
                )
        elif data.labels is not None and data.labels.size and data.labels.max() >= task.classes:
            raise LabelMismatch(
                f"{data.name}: label goes up to {int(data.labels.max())}, the teacher has classes 0 to "
                f"{task.classes - 1}"
            )
        if name != "pool" and data.rows < 2:
            raise TooLittleData(f"{data.name}: {data.rows} rows are too few for {name}")


def warn_of_shared(splits: Mapping[str, Split], caution: Warn) -> None:
    """Say which evaluation rows or groups were learned from or chosen by, and which labels are not used."""
    evaluation = splits["evaluation"].data
    for name, split in splits.items():
        if name == "evaluation":
            continue
        seen = set(_rows(split.data))
        shared = sum(row in seen for row in _rows(evaluation))
        if shared:
            caution(f"{shared:,} of {evaluation.rows:,} evaluation rows are in the {name} data too; they flatter it")
        if evaluation.groups is not None and split.data.groups is not None:
            common = len(np.intersect1d(evaluation.groups, split.data.groups))
            if common:
                caution(f"{common} groups are in both the {name} and the evaluation data")
    pool = splits.get("pool")
    if pool is not None and (pool.data.labels is not None or pool.data.targets is not None):
        caution("the pool's labels are not used: put rows whose labels are to be learned into the training data")


def _rows(data: Dataset) -> Iterator[bytes]:
    for row in range(data.rows):
        yield hashlib.sha256(
            b"".join(np.ascontiguousarray(array[row]).tobytes() for array in data.inputs.values())
        ).digest()


def held_out(splits: Mapping[str, Split], caution: Warn) -> tuple[Split, Split, bool]:
    """Training and validation rows, and whether groups were kept whole."""
    training = splits["training"]
    if "validation" in splits:
        held, by_group = splits["validation"], False
    else:
        taught, kept = split_rows(training.data, (1 - VALIDATION_SHARE, VALIDATION_SHARE))
        held = Split(data=training.data.at(kept), answers=training.answers[kept])
        training = Split(data=training.data.at(taught), answers=training.answers[taught])
        groups = training.data.groups
        by_group = groups is not None and not set(groups) & set(
            held.data.groups if held.data.groups is not None else ()
        )
        caution(
            "validation rows are a part of the training file; if the teacher was trained on them its validation score "
            "is flattered: give --validation"
        )
    for what, split in (("validation", held), ("evaluation", splits["evaluation"])):
        if split.data.rows < FEW:
            caution(f"only {split.data.rows} {what} rows: a score on them scatters by several points")
    return training, held, by_group


def lessons(taught: Split, pool: Split | None, task: Task) -> tuple[Lesson, Lesson | None]:
    """What the distilled arm learns from, and what the labels-only arm does: as many rows, so as many updates."""
    truth = task.truth(taught.data)
    inputs, answers = dict(taught.data.inputs), taught.answers
    if pool is not None:
        inputs = {name: np.concatenate([array, pool.data.inputs[name]]) for name, array in inputs.items()}
        answers = np.concatenate([answers, pool.answers])
    if truth is None:
        return Lesson(inputs=inputs, answers=answers, regression=task.kind == "regression"), None
    more = len(answers) - len(truth)
    if task.kind == "regression":
        values = truth.reshape(len(truth), -1).astype(np.float64)
        targets = np.concatenate([values, np.full((more, values.shape[1]), np.nan)])
        lesson = Lesson(inputs=inputs, answers=answers, targets=targets, regression=True)
    else:
        labels = np.concatenate([truth, np.full(more, -1, truth.dtype)])
        lesson = Lesson(inputs=inputs, answers=answers, labels=labels)
    return lesson, lesson.at(np.resize(np.arange(len(truth)), len(answers)))
