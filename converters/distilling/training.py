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

__all__ = ["Epoch", "Lesson", "Settings", "Trained", "Trainer", "answers_of"]

PREDICT_ROWS = 512
Loss = Callable[[Any, Any, Any, Any], Any]  # packed truth, the student's answers, weight of labels, scale → (rows,)


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

    def scale(self) -> np.ndarray:
        """Standard deviation of the answers, ``(outputs,)`` float32; 1 for one that never changes."""
        spread = self.answers.std(axis=0)
        return np.where(spread > 0, spread, 1.0).astype(np.float32)

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


class Trainer:
    """A compiled training step of one built functional `keras.Model`, which it trains in place.

    It is traced once and used for every arm and seed: tracing, and Keras's own loop around it, take several times as
    long as the arithmetic of a small student.
    """

    def __init__(self, model: Any, settings: Settings, *, rows: int, outputs: int, regression: bool = False) -> None:
        keras, tf = load_tool("keras"), load_tool("tensorflow")
        self.model = model
        self._settings, self._rows = settings, rows
        steps = -(-rows // settings.batch_size) * settings.epochs
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps))
        optimizer.build(model.trainable_variables)
        self._optimizer = optimizer
        loss = _squared(outputs) if regression else _softened(outputs, settings.temperature)

        def step(arrays: Any, packed: Any, chosen: Any, alpha: Any, scale: Any) -> Any:
            batch = [tf.gather(array, chosen) for array in arrays]
            with tf.GradientTape() as tape:
                given = model(batch if len(batch) > 1 else batch[0], training=True)
                value = tf.reduce_mean(loss(tf.gather(packed, chosen), given, alpha, scale))
                for penalty in model.losses:
                    value += penalty
            optimizer.apply(tape.gradient(value, model.trainable_variables))
            return value

        self._step = tf.function(step, autograph=False, reduce_retracing=True)

    def train(
        self,
        lesson: Lesson,
        *,
        alpha: float,
        seed: int,
        start: Any = None,
        validate: Callable[[], float] | None = None,
        progress: Callable[[Epoch], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Trained:
        """Train from the variables of ``start``, a model of the same architecture, or from the model's own.

        ``validate`` scores the model after each epoch, and the best epoch's weights are kept. ``seed`` fixes the order
        of the rows; initial weights and dropout are those of ``start``.
        """
        tf = load_tool("tensorflow")
        started = clock()
        if start is not None:
            for ours, theirs in zip(self.model.variables, start.variables, strict=True):
                ours.assign(theirs)
        for variable in self._optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        ordered = _ordered(self.model, lesson.inputs)
        arrays = [tf.constant(array) for array in (ordered if isinstance(ordered, list) else [ordered])]
        packed = tf.constant(lesson.packed())
        weight, scale = tf.constant(alpha, tf.float32), tf.constant(lesson.scale())
        rng = np.random.default_rng(seed)
        size, epochs = self._settings.batch_size, self._settings.epochs
        history: list[Epoch] = []
        best: tuple[float, int, list[np.ndarray]] | None = None
        for epoch in range(1, epochs + 1):
            order = rng.permutation(self._rows).astype(np.int32)
            batches = [order[at : at + size] for at in range(0, self._rows, size)]
            losses = [self._step(arrays, packed, tf.constant(batch), weight, scale) for batch in batches]
            reached = None
            if validate is not None:
                reached = validate()
                if best is None or reached >= best[0]:  # of equals the later one: its learning rate was lower
                    best = (reached, epoch, self.model.get_weights())
            loss = float(np.average([float(each) for each in losses], weights=[len(batch) for batch in batches]))
            history.append(Epoch(epoch=epoch, epochs=epochs, loss=loss, validation_accuracy=reached))
            if progress:
                progress(history[-1])
        if best is not None:
            self.model.set_weights(best[2])
        return Trained(
            best_epoch=epochs if best is None else best[1],
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


def _softened(outputs: int, temperature: float) -> Loss:
    ops = load_tool("keras").ops

    def loss(packed: Any, logits: Any, alpha: Any, _scale: Any) -> Any:
        weight = alpha * packed[:, -1]
        soft = ops.softmax(packed[:, :outputs] / temperature)
        hard = ops.one_hot(ops.cast(packed[:, outputs], "int32"), outputs)  # all zeros for a row without a label
        # Cross-entropy in place of KL: they differ by the teacher's entropy, which has no gradient.
        taught = -(temperature**2) * ops.sum(soft * ops.log_softmax(logits / temperature), axis=-1)
        return (1 - weight) * taught - weight * ops.sum(hard * ops.log_softmax(logits), axis=-1)

    return loss


def _squared(outputs: int) -> Loss:
    ops = load_tool("keras").ops

    def loss(packed: Any, values: Any, alpha: Any, scale: Any) -> Any:
        weight = alpha * packed[:, -1]
        taught = ops.mean(((values - packed[:, :outputs]) / scale) ** 2, axis=-1)
        known = ops.mean(((values - packed[:, outputs : 2 * outputs]) / scale) ** 2, axis=-1)
        return (1 - weight) * taught + weight * known

    return loss
