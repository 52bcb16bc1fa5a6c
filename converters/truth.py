"""Labels or targets: which of them a model is measured by, where data holds both or the other one. Pure."""

from __future__ import annotations

from dataclasses import replace

from converters.data import LABEL, TARGET, Dataset
from converters.errors import LabelMismatch
from converters.task import Task, TaskKind

__all__ = ["check_truth", "one_truth"]


def one_truth(data: Dataset, asked: TaskKind | None) -> Dataset:
    """The data with labels or with targets. Of both, those of the task that was ``asked`` for stay; nothing else can
    tell which are meant, so that without it they raise `LabelMismatch`."""
    if data.labels is None or data.targets is None:
        return data
    if asked is None:
        raise LabelMismatch(
            f"{data.name}: holds both {LABEL} and {TARGET}, and a model is measured by one of them; leave one out, or "
            f"say which with --task: classification and binary take {LABEL}, regression takes {TARGET}"
        )
    return replace(data, labels=None) if asked == "regression" else replace(data, targets=None)


def check_truth(data: Dataset, task: Task, values_a_row: int | None) -> None:
    """Raises `LabelMismatch` for what ``task``, which the evaluation data decided, would ignore without a word, and for
    targets of another size than the first output's ``values_a_row``, where that is known."""
    given = LABEL if data.labels is not None else TARGET if data.targets is not None else None
    if given is None:
        return
    if task.metric is None:
        raise LabelMismatch(
            f"{data.name}: holds {given}, but a {task.kind} model is measured by its agreement alone; leave {given} out"
        )
    if task.truth(data) is None:
        taken = TARGET if task.kind == "regression" else LABEL
        raise LabelMismatch(
            f"{data.name}: holds {given}, but by the evaluation data this is a {task.kind} model, which is measured by "
            f"{taken}; give all files the same one, or leave {given} out here"
        )
    targets = data.targets
    if targets is not None and values_a_row is not None and targets.size != values_a_row * len(targets):
        raise LabelMismatch(
            f"{data.name}: target has shape {targets.shape}, which is not the {values_a_row} values a row of the first "
            f"output {task.output}"
        )
