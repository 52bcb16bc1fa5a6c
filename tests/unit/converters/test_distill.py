from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.distill import Epoch, distill
from converters.errors import (
    InvalidRequest,
    LabelMismatch,
    NonFiniteData,
    TooLittleData,
    UnsupportedModel,
    WrongShape,
)
from tests.unit.converters.conftest import OFFSET, SCALE, windows

X, Y = windows(400, 21)
HELD = windows(200, 22)


def linear_student(keras: Any, seed: int = 5) -> Any:
    keras.utils.set_random_seed(seed)
    window = keras.Input(X.shape[1:], name="window")
    scaled = keras.layers.Rescaling(1 / SCALE, offset=-OFFSET / SCALE)(window)
    h = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(12, 7, activation="relu")(scaled))
    return keras.Model(window, keras.layers.Dense(3, name="logits")(h))


def test_a_student_learns_from_the_teacher_alone_and_the_best_epoch_is_kept(keras: Any, student: Any) -> None:
    seen: list[Epoch] = []
    small = linear_student(keras)
    report = distill(student, small, X, validation=HELD, epochs=6, batch_size=32, seed=1, progress=seen.append)
    assert report.epochs == tuple(seen)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].loss < seen[0].loss
    assert report.teacher_accuracy is not None
    assert report.teacher_accuracy > 0.9
    assert report.student_accuracy == max(epoch.validation_accuracy or 0 for epoch in seen)
    assert report.student_accuracy > 0.45
    kept = (small.predict(HELD[0], verbose=0).argmax(axis=1) == HELD[1]).mean()
    assert kept == pytest.approx(report.student_accuracy)
    assert not report.labelled
    assert report.alpha == 0.0


def test_the_same_seed_gives_the_same_student(keras: Any, student: Any) -> None:
    calls = []

    def teacher(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return np.asarray(student.predict(x, verbose=0))

    models = [linear_student(keras) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        distill(teacher, model, X, Y, epochs=1, seed=seed)
    first, second, third = (np.concatenate([w.ravel() for w in model.get_weights()]) for model in models)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
    assert calls == [len(X)] * 3, "the teacher answers once for each training"


def test_labels_alone_are_enough_when_their_weight_is_one(keras: Any) -> None:
    small = linear_student(keras)
    confused = distill(
        lambda x: np.zeros((len(x), 3)), small, X, Y, validation=HELD, alpha=1.0, epochs=6, batch_size=32
    )
    assert confused.student_accuracy is not None
    assert confused.student_accuracy > 0.45
    assert confused.labelled


def zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros((len(x), 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X[:, :5]}, WrongShape, r"takes rows of shape \(32, 3\)"),
        ({"x": X[:2]}, TooLittleData, "2 training rows"),
        ({"x": np.full_like(X, np.nan)}, NonFiniteData, "rows hold NaN"),
        ({"y": Y[:3]}, LabelMismatch, "400 whole numbers"),
        ({"y": Y + 1}, LabelMismatch, "range from 1 to 3"),
        ({"teacher": lambda x: np.zeros((len(x), 4))}, WrongShape, r"expected \(400, 3\)"),
        ({"teacher": lambda x: np.full((len(x), 3), np.nan)}, NonFiniteData, "teacher's logits"),
        ({"teacher": 3}, UnsupportedModel, "not int"),
        ({"validation": (HELD[0], HELD[1][:9])}, LabelMismatch, "validation labels"),
        ({"temperature": 0}, InvalidRequest, "temperature"),
        ({"alpha": 1.5}, InvalidRequest, "alpha"),
        ({"epochs": 0}, InvalidRequest, "epochs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_requests_are_refused_before_training(
    keras: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    settings = {"teacher": zeros, "student": linear_student(keras), "x": X, "y": Y} | arguments
    with pytest.raises(error, match=message):
        distill(**settings)


def test_a_student_that_is_not_a_classifier_is_refused(keras: Any) -> None:
    window = keras.Input(X.shape[1:])
    with pytest.raises(UnsupportedModel, match="logits"):
        distill(zeros, keras.Model(window, keras.layers.Conv1D(3, 3)(window)), X)
