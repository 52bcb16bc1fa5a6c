"""First stage: load the source, check every data set against it, and keep both and its answers as files.

Everything that can be refused without converting is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.data import LABEL, TARGET, Dataset, check_dataset, load_dataset, save_dataset
from converters.errors import CheckFailed, ConverterError, LabelMismatch
from converters.progress import Say
from converters.routes import refuse_unsupported
from converters.shared_rows import Shared, refuse_same_rows, shared_rows
from converters.sources.base import Source, is_batched
from converters.stages.files import EDGE, answers_file, data_file
from converters.stages.sources import SourceInfo, SourceRef, fetched, open_ref
from converters.task import Task, TaskKind, find_task
from converters.truth import check_truth, one_truth

__all__ = ["Job", "Result", "Split", "run"]

MAX_ANSWERED_ROWS = 4096  # of calibration rows, evenly spread; the search needs no more
ANSWERED = ("evaluation", "calibration")  # splits that an artifact's answers are compared with the source's on


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``data`` maps a split to its ``.npz``; ``minimum`` the fewest rows that it may have. ``work`` is a folder."""

    source: SourceRef
    targets: tuple[str, ...]
    data: Mapping[str, str]
    minimum: Mapping[str, int]
    work: str
    task: TaskKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What is known of one data set. ``used`` of its ``rows`` are; ``sha256`` is of all."""

    name: str
    rows: int
    used: int
    sha256: str
    labelled: bool
    groups: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``source`` is where the model is now, on this machine. ``refused`` says, for each target that cannot be reached,
    why, and the way around. ``unskilled`` are the splits on which the source is no better than a constant answer;
    ``shared`` has the pairs of splits that should have nothing in common, and do."""

    source: SourceRef
    info: SourceInfo
    task: Task
    splits: Mapping[str, Split]
    refused: Mapping[str, str] = field(default_factory=dict)
    unskilled: tuple[str, ...] = ()
    shared: tuple[Shared, ...] = ()


def run(job: Job, say: Say) -> Result:
    """Raises `SourceError`, `DataError`, and `CheckFailed` for a source whose own answers are not numbers."""
    steps = len(job.data) + 2
    loaded = {split: load_dataset(path) for split, path in job.data.items()}
    say("loading the source", 0, steps)
    ref = fetched(job.source, Path(job.work), say)
    source = open_ref(ref)
    info = SourceInfo.of(source)
    refused = {target: reason for target in job.targets if (reason := _refusal(source, target))}
    checked: dict[str, Dataset] = {}
    whole: dict[str, tuple[int, str]] = {}
    answers: dict[str, dict[str, np.ndarray]] = {}
    for split, data in loaded.items():
        data = check_dataset(data, info.inputs, minimum=job.minimum.get(split, 1))
        _refuse_changing_axes(data, info)
        loaded[split] = one_truth(data, job.task)
    if "calibration" in loaded:
        refuse_same_rows(loaded["calibration"], loaded["evaluation"])
    for index, (split, data) in enumerate(loaded.items()):
        say(f"{split}: {data.rows:,} rows", index + 1, steps)
        whole[split] = data.rows, data.sha256
        data = data.take(MAX_ANSWERED_ROWS) if split == "calibration" else data
        checked[split] = data
        if split in ANSWERED:
            answers[split] = source.predict(data.inputs)
            _refuse_not_finite(info, split, answers[split])
    task = find_task(info.outputs, info.activation, answers["evaluation"], checked["evaluation"], job.task)
    for split, data in checked.items():
        if task.kind in ("classification", "binary"):
            check_dataset(data, info.inputs, classes=task.classes or 2)
        if split.startswith(EDGE) and task.truth(data) is None:
            raise LabelMismatch(
                f"{data.name}: an edge case is judged by its array {TARGET if task.kind == 'regression' else LABEL}, "
                + ("which outputs of such a shape cannot have" if task.metric is None else "which is missing")
            )
        if split != "training":  # of whose rows only the inputs are used
            check_truth(data, task, _values_a_row(info, answers.get(split), answers["evaluation"]))
        save_dataset(data, data_file(job.work, split))
        if split in answers:
            np.savez(answers_file(job.work, split), **answers[split])
    return Result(
        source=ref,
        info=info,
        task=task,
        splits={
            split: Split(
                name=data.name,
                rows=whole[split][0],
                used=data.rows,
                sha256=whole[split][1],
                labelled=task.truth(data) is not None,
                groups=None if data.groups is None else len(np.unique(data.groups)),
            )
            for split, data in checked.items()
        },
        refused=refused,
        unskilled=tuple(
            split
            for split, given in answers.items()
            if (truth := task.truth(checked[split])) is not None and not task.is_skilled(given, truth)
        ),
        shared=shared_rows(checked),
    )


def _values_a_row(
    info: SourceInfo, own: Mapping[str, np.ndarray] | None, evaluation: Mapping[str, np.ndarray]
) -> int | None:
    """Of the first output, for a split; None where only an answer would tell."""
    first = info.outputs[0]
    if own is None and any(isinstance(size, str) for size in first.shape[1:]):
        return None
    values = (evaluation if own is None else own)[first.name]
    return int(values.size // max(1, len(values)))


def _refusal(source: Source, target: str) -> str:
    """Why this target cannot be made of the source, or nothing."""
    try:
        refuse_unsupported(source, target)
    except ConverterError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _refuse_changing_axes(data: Dataset, info: SourceInfo) -> None:
    """An axis with one name must have one size in a row of every input; NumPy arrays see to it within one input."""
    batched = is_batched(info.inputs)
    sizes: dict[str, int] = {}
    for spec in info.inputs:
        shape = spec.shape[1:] if batched else spec.shape
        for axis, size in zip(shape, data.inputs[spec.name].shape[1:], strict=True):
            if isinstance(axis, str) and sizes.setdefault(axis, size) != size:
                raise LabelMismatch(f"{data.name}: axis {axis} has sizes {sizes[axis]} and {size}")


def _refuse_not_finite(info: SourceInfo, split: str, answers: Mapping[str, np.ndarray]) -> None:
    for name, values in answers.items():
        if values.dtype.kind == "f" and not np.isfinite(values).any():
            raise CheckFailed(
                f"{info.name}: its own output {name} is not finite for any row of the {split} data; "
                "a model that answers nothing cannot be measured"
            )
