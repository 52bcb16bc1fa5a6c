"""Knowledge distillation: a small student learns from a teacher's softened answers, and from labels if there are any.

Hinton, Vinyals, Dean (2015): loss = alpha · CE(labels) + (1 − alpha) · T² · KL(teacher/T ‖ student/T). The teacher
answers once, before training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import InvalidRequest, LabelMismatch, NonFiniteData, TooLittleData, UnsupportedModel, WrongShape
from converters.evaluate import accuracy
from converters.quiet import load_tool

__all__ = ["DistillReport", "Epoch", "distill"]

Teacher = Callable[[np.ndarray], Any]
PREDICT_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """``validation_accuracy`` is None without validation data."""

    epoch: int
    epochs: int
    loss: float
    validation_accuracy: float | None


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
    keras = load_tool("keras")
    _check_settings(temperature=temperature, alpha=alpha, epochs=epochs, batch_size=batch_size)
    started = clock()
    keras.utils.set_random_seed(seed)
    x = np.ascontiguousarray(x, dtype=np.float32)
    classes = _classes(student, x)
    answer = _answering(teacher)
    soft = _logits(answer, x, classes)
    _check_rows(x, y, classes, "training")
    targets = np.full((len(x), classes + 1), -1.0, np.float32)  # the teacher's logits, and the label or -1
    targets[:, :classes] = soft
    if y is not None:
        targets[:, classes] = y
    teacher_accuracy = None
    if validation is not None:
        held_x, held_y = np.ascontiguousarray(validation[0], dtype=np.float32), np.asarray(validation[1])
        _check_rows(held_x, held_y, classes, "validation")
        teacher_accuracy = accuracy(_logits(answer, held_x, classes), held_y)

    steps = -(-len(x) // batch_size) * epochs
    # A second model over the same layers is compiled, so that the student stays free of this loss and can be saved.
    trainer = keras.Model(student.inputs, student.outputs)
    trainer.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps)),
        loss=_loss(temperature, alpha if y is not None else 0.0, classes),
        jit_compile=False,
    )
    history: list[Epoch] = []
    best: tuple[float, int, list[np.ndarray]] | None = None

    def ended(index: int, logs: Mapping[str, float] | None = None) -> None:
        nonlocal best
        reached = None
        if validation is not None:
            reached = accuracy(_predict(student, held_x), held_y)
            if best is None or reached > best[0]:
                best = (reached, index + 1, student.get_weights())
        loss = float((logs or {}).get("loss", np.nan))
        history.append(Epoch(epoch=index + 1, epochs=epochs, loss=loss, validation_accuracy=reached))
        if progress:
            progress(history[-1])

    watch = keras.callbacks.LambdaCallback(on_epoch_end=ended)
    trainer.fit(x, targets, batch_size=batch_size, epochs=epochs, verbose=0, shuffle=True, callbacks=[watch])
    if best is not None:
        student.set_weights(best[2])
    agreement = _predict(student, x).argmax(axis=1) == soft.argmax(axis=1)
    return DistillReport(
        student_accuracy=None if best is None else best[0],
        teacher_accuracy=teacher_accuracy,
        train_agreement=float(agreement.mean()),
        best_epoch=epochs if best is None else best[1],
        epochs=tuple(history),
        rows=len(x),
        labelled=y is not None,
        student_parameters=int(student.count_params()),
        temperature=temperature,
        alpha=alpha if y is not None else 0.0,
        seed=seed,
        seconds=clock() - started,
    )


def _loss(temperature: float, alpha: float, classes: int) -> Callable[[Any, Any], Any]:
    ops = load_tool("keras").ops

    def loss(targets: Any, logits: Any) -> Any:
        soft = ops.softmax(targets[:, :classes] / temperature)
        # Cross-entropy in place of KL: they differ by the teacher's entropy, which has no gradient.
        total = -(1 - alpha) * temperature**2 * ops.sum(soft * ops.log_softmax(logits / temperature), axis=-1)
        if alpha:
            hard = ops.one_hot(ops.cast(targets[:, classes], "int32"), classes)
            total = total - alpha * ops.sum(hard * ops.log_softmax(logits), axis=-1)
        return total

    return loss


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


def _check_settings(*, temperature: float, alpha: float, epochs: int, batch_size: int) -> None:
    if not temperature > 0:
        raise InvalidRequest(f"temperature must be above 0, not {temperature}")
    if not 0 <= alpha <= 1:
        raise InvalidRequest(f"alpha, the weight of the labels, is 0 to 1, not {alpha}")
    if epochs < 1 or batch_size < 1:
        raise InvalidRequest(f"epochs and batch_size must be 1 or more, not {epochs} and {batch_size}")
