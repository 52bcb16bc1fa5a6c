"""Knowledge distillation in Python, once: a given student learns from a teacher's softened answers, and from labels if
there are any (the loss is `distilling.training`'s). The teacher answers once, before training.

`distilling.distil_over_seeds` does it over several seeds, beside the same student from labels alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.distilling.training import Epoch, Lesson, Settings, Trainer
from converters.errors import LabelMismatch, NonFiniteData, TooLittleData, UnsupportedModel, WrongShape
from converters.evaluate import accuracy
from converters.quiet import load_tool

__all__ = ["DistillReport", "Epoch", "distill"]

Teacher = Callable[[np.ndarray], Any]
PREDICT_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillReport:
    """What was reached. The student's weights are those of ``best_epoch`` (by validation accuracy; the last without).

    ``teacher_accuracy`` and ``student_accuracy`` are on the validation rows, None without them.
    ``train_agreement`` is the share of training rows that the student decides as the teacher does.
    """

    student_accuracy: float | None
    teacher_accuracy: float | None
    train_agreement: float
    best_epoch: int
    epochs: tuple[Epoch, ...]
    rows: int
    labelled: bool
    student_parameters: int
    temperature: float
    alpha: float
    seed: int
    seconds: float


def distill(
    teacher: Teacher | Any,
    student: Any,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    temperature: float = 4.0,
    alpha: float = 0.3,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[Epoch], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> DistillReport:
    """Train ``student``, a built `keras.Model` with one input and logits as output, in place.

    ``teacher`` is a Keras model or any function from rows ``(n, …)`` to logits ``(n, classes)``. ``y`` holds class
    indices; without it only the teacher is learned from. ``alpha`` is the weight of the labels. The seed fixes the
    order of the rows and dropout; the student's initial weights are the caller's (build it after
    `keras.utils.set_random_seed`).

    Raises `TooLittleData`, `WrongShape`, `NonFiniteData`, `LabelMismatch`, `UnsupportedModel`, `InvalidRequest`.
    """
    settings = Settings(
        temperature=temperature, alpha=alpha, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate
    )
    settings.check()
    started = clock()
    x = np.ascontiguousarray(x, dtype=np.float32)
    classes = _classes(student, x)
    answer = _answering(teacher)
    soft = _logits(answer, x, classes)
    _check_rows(x, y, classes, "training")
    teacher_accuracy = None
    if validation is not None:
        held_x, held_y = np.ascontiguousarray(validation[0], dtype=np.float32), np.asarray(validation[1])
        _check_rows(held_x, held_y, classes, "validation")
        teacher_accuracy = accuracy(_logits(answer, held_x, classes), held_y)

    trained = Trainer(student, settings, rows=len(x), outputs=classes).train(
        Lesson(inputs={"x": x}, answers=soft, labels=None if y is None else np.asarray(y)),
        alpha=alpha if y is not None else 0.0,
        seed=seed,
        validate=None if validation is None else lambda: accuracy(_predict(student, held_x), held_y),
        progress=progress,
        clock=clock,
    )
    agreement = _predict(student, x).argmax(axis=1) == soft.argmax(axis=1)
    return DistillReport(
        student_accuracy=trained.validation,
        teacher_accuracy=teacher_accuracy,
        train_agreement=float(agreement.mean()),
        best_epoch=trained.best_epoch,
        epochs=trained.epochs,
        rows=len(x),
        labelled=y is not None,
        student_parameters=int(student.count_params()),
        temperature=temperature,
        alpha=alpha if y is not None else 0.0,
        seed=seed,
        seconds=clock() - started,
    )


def _answering(teacher: Teacher | Any) -> Teacher:
    keras = load_tool("keras")
    if isinstance(teacher, keras.Model):
        return lambda x: _predict(teacher, x)
    if not callable(teacher):
        raise UnsupportedModel(
            f"a teacher is a Keras model or a function from rows to logits, not {type(teacher).__name__}"
        )
    return teacher


def _predict(model: Any, x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.asarray(model.predict(x, batch_size=PREDICT_ROWS, verbose=0))
    return result


def _logits(answer: Teacher, x: np.ndarray, classes: int) -> np.ndarray:
    logits = np.asarray(answer(x), dtype=np.float32)
    if logits.shape != (len(x), classes):
        raise WrongShape(f"the teacher answered with shape {logits.shape}, expected ({len(x)}, {classes})")
    if not np.isfinite(logits).all():
        raise NonFiniteData("the teacher's logits hold NaN or infinity")
    return logits


def _classes(student: Any, x: np.ndarray) -> int:
    shapes = getattr(student, "output_shape", None)
    inputs = getattr(student, "inputs", None)
    if not isinstance(shapes, tuple) or len(shapes) != 2 or shapes[1] is None or not inputs or len(inputs) != 1:
        raise UnsupportedModel("a student is a built keras.Model with one input and logits (batch, classes) as output")
    wanted = tuple(inputs[0].shape)[1:]
    if x.shape[1:] != wanted:
        raise WrongShape(f"the student takes rows of shape {wanted}, the data has {x.shape[1:]}")
    return int(shapes[1])


def _check_rows(x: np.ndarray, y: np.ndarray | None, classes: int, what: str) -> None:
    if len(x) < classes:
        raise TooLittleData(f"{len(x)} {what} rows for {classes} classes")
    if not np.isfinite(x).all():
        raise NonFiniteData(f"the {what} rows hold NaN or infinity")
    if y is None:
        return
    y = np.asarray(y)
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise LabelMismatch(f"{what} labels must be {len(x)} whole numbers, not {y.dtype} {y.shape}")
    if y.min() < 0 or y.max() >= classes:
        raise LabelMismatch(f"{what} labels range from {y.min()} to {y.max()}, the student has {classes} classes")
