"""One training of one student: from labels, from a teacher's answers, or from both.

Hinton, Vinyals, Dean (2015), Distilling the Knowledge in a Neural Network: for a labelled row
alpha · CE(label) + (1 − alpha) · T² · KL(teacher/T ‖ student/T); for a row without a label the second term alone, with
weight 1. For regression both terms are squared errors, in units of the answers' standard deviation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import InvalidRequest
from converters.quiet import load_tool

__all__ = ["Epoch", "Lesson", "Settings", "Trained", "answers_of", "train"]

PREDICT_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a student is trained. ``alpha`` is the weight of the labels; ``learning_rate`` decays to 0 by a cosine."""

    temperature: float = 4.0
    alpha: float = 0.3
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3

    def check(self) -> None:
        """Raises `InvalidRequest` for a value that cannot be used."""
        if not self.temperature > 0:
            raise InvalidRequest(f"temperature must be above 0, not {self.temperature}")
        if not 0 <= self.alpha <= 1:
            raise InvalidRequest(f"alpha, the weight of the labels, is 0 to 1, not {self.alpha}")
        if self.epochs < 1 or self.batch_size < 1:
            raise InvalidRequest(f"epochs and batch_size must be 1 or more, not {self.epochs} and {self.batch_size}")
        if not self.learning_rate > 0:
            raise InvalidRequest(f"learning_rate must be above 0, not {self.learning_rate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a student is taught from: ``inputs`` by name ``(rows, …)``, the teacher's ``answers`` ``(rows, outputs)``
    float32 (logits, or values with ``regression``), and the truth of the rows that have one.

    ``labels`` are class indices ``(rows,)``, -1 for a row without; ``targets`` are values ``(rows, outputs)``, NaN for
    a row without. At most one of the two is given.
    """

    inputs: Mapping[str, np.ndarray]
    answers: np.ndarray
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    regression: bool = False

    def at(self, rows: np.ndarray) -> Lesson:
        """The rows of these numbers; a number may come up more than once."""
        return Lesson(
            inputs={name: array[rows] for name, array in self.inputs.items()},
            answers=self.answers[rows],
            labels=None if self.labels is None else self.labels[rows],
            targets=None if self.targets is None else self.targets[rows],
            regression=self.regression,
        )

    def packed(self) -> np.ndarray:
        """Answers, truth, and whether there is one, side by side in one float32 array, as Keras passes targets on."""
        rows = len(self.answers)
        if self.regression:
            truth = np.full(self.answers.shape, np.nan) if self.targets is None else self.targets.reshape(rows, -1)
            known = np.isfinite(truth).all(axis=1, keepdims=True)
            return np.concatenate([self.answers, np.where(known, truth, 0.0), known], axis=1, dtype=np.float32)
        label = (np.full(rows, -1) if self.labels is None else self.labels).reshape(rows, 1)
        return np.concatenate([self.answers, label, label >= 0], axis=1, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """``validation_accuracy`` is None without validation data."""

    epoch: int
    epochs: int
    loss: float
    validation_accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """``best_epoch`` is the one whose weights the model has now: best by validation, or the last without."""

    best_epoch: int
    validation: float | None
    epochs: tuple[Epoch, ...]
    seconds: float


def train(
    model: Any,
    lesson: Lesson,
    settings: Settings,
    *,
    alpha: float,
    seed: int,
    validate: Callable[[], float] | None = None,
    progress: Callable[[Epoch], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trained:
    """Train a built functional `keras.Model` in place. ``validate`` scores it after each epoch; the best is kept.

    ``seed`` fixes the order of the rows and dropout; the initial weights are the caller's.
    """
    keras = load_tool("keras")
    started = clock()
    keras.utils.set_random_seed(seed)
    steps = -(-len(lesson.answers) // settings.batch_size) * settings.epochs
    # A second model over the same layers is compiled, so that the student stays free of this loss and can be saved.
    trainer = keras.Model(model.inputs, model.outputs)
    trainer.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)),
        loss=_loss(lesson, settings.temperature, alpha),
        jit_compile=False,
    )
    history: list[Epoch] = []
    best: tuple[float, int, list[np.ndarray]] | None = None

    def ended(index: int, logs: Mapping[str, float] | None = None) -> None:
        nonlocal best
        reached = None
        if validate is not None:
            reached = validate()
            if best is None or reached >= best[0]:  # of equals the later one: its learning rate was lower
                best = (reached, index + 1, model.get_weights())
        loss = float((logs or {}).get("loss", np.nan))
        history.append(Epoch(epoch=index + 1, epochs=settings.epochs, loss=loss, validation_accuracy=reached))
        if progress:
            progress(history[-1])

    watch = keras.callbacks.LambdaCallback(on_epoch_end=ended)
    trainer.fit(
        _ordered(model, lesson.inputs),
        lesson.packed(),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        verbose=0,
        shuffle=True,
        callbacks=[watch],
    )
    if best is not None:
        model.set_weights(best[2])
    return Trained(
        best_epoch=settings.epochs if best is None else best[1],
        validation=None if best is None else best[0],
        epochs=tuple(history),
        seconds=clock() - started,
    )


def answers_of(model: Any, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The only output of a Keras model for rows of inputs, ``(rows, …)``.

    Called, not predicted with: `predict` sets up a pipeline each time, which costs more than a small student's answers.
    """
    rows = len(next(iter(inputs.values())))
    chunks = (
        _ordered(model, {name: array[start : start + PREDICT_ROWS] for name, array in inputs.items()})
        for start in range(0, rows, PREDICT_ROWS)
    )
    to_numpy = load_tool("keras").ops.convert_to_numpy
    return np.concatenate([to_numpy(model(chunk, training=False)) for chunk in chunks])


def _ordered(model: Any, inputs: Mapping[str, np.ndarray]) -> Any:
    """Arrays as the model takes them: one alone, whatever its name; several in the order of its inputs, by name."""
    arrays = list(inputs.values())
    return arrays[0] if len(arrays) == 1 else [inputs[tensor.name] for tensor in model.inputs]


def _loss(lesson: Lesson, temperature: float, alpha: float) -> Callable[[Any, Any], Any]:
    ops = load_tool("keras").ops
    outputs = lesson.answers.shape[1]

    def distance(packed: Any, logits: Any) -> Any:
        weight = alpha * packed[:, -1]
        soft = ops.softmax(packed[:, :outputs] / temperature)
        # Cross-entropy in place of KL: they differ by the teacher's entropy, which has no gradient.
        loss = -(1 - weight) * temperature**2 * ops.sum(soft * ops.log_softmax(logits / temperature), axis=-1)
        if alpha:
            hard = ops.one_hot(ops.cast(packed[:, outputs], "int32"), outputs)
            loss = loss - weight * ops.sum(hard * ops.log_softmax(logits), axis=-1)
        return loss

    scale = lesson.answers.std(axis=0) if lesson.regression else np.ones(1)
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)

    def squared(packed: Any, values: Any) -> Any:
        weight = alpha * packed[:, -1]
        soft = ops.mean(((values - packed[:, :outputs]) / scale) ** 2, axis=-1)
        hard = ops.mean(((values - packed[:, outputs : 2 * outputs]) / scale) ** 2, axis=-1)
        return (1 - weight) * soft + weight * hard

    return squared if lesson.regression else distance
