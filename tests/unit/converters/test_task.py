from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import Dataset
from converters.errors import InvalidRequest, LabelMismatch
from converters.task import Task, are_probabilities, decisions, find_task
from edge_runtime.bundle import TensorSpec

ROWS = 6
X = np.zeros((ROWS, 2), np.float32)
LABELS = np.arange(ROWS) % 3


def spec(*shape: int | str, name: str = "y") -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=("batch", *shape))


def data(**known: Any) -> Dataset:
    return Dataset(name="e.npz", inputs={"x": X}, **known)


def logits(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, *shape)) * 3


def softmax(values: np.ndarray) -> np.ndarray:
    e = np.exp(values)
    return e / e.sum(axis=-1, keepdims=True)


def test_one_number_for_each_of_several_classes_is_a_classification_with_or_without_labels() -> None:
    for known in ({"labels": LABELS}, {}):
        task = find_task((spec(3),), None, {"y": logits(3)}, data(**known))
        assert (task.kind, task.classes, task.probabilities, task.metric) == ("classification", 3, False, "accuracy")


def test_probabilities_are_seen_by_the_last_operation_or_by_their_sum() -> None:
    assert find_task((spec(3),), "softmax", {"y": logits(3)}, data()).probabilities
    assert find_task((spec(3),), None, {"y": softmax(logits(3))}, data()).probabilities
    assert are_probabilities(softmax(logits(5)).astype(np.float16))
    assert not are_probabilities(np.full((3, 2), np.nan))
    assert not are_probabilities(np.array([[-0.5, 1.5]]))


def test_one_number_with_classes_zero_and_one_is_a_yes_or_no() -> None:
    labels = np.array([0, 1, 1, 0, 1, 0])
    logit = np.where(labels, 2.0, -2.0)[:, None]
    task = find_task((spec(1),), None, {"y": logit}, data(labels=labels))
    assert (task.kind, task.border) == ("binary", 0.0)
    assert task.accuracy({"y": logit}, labels) == 1.0
    assert task.agreement({"y": logit}, {"y": -logit}) == 0.0
    sigmoid = find_task((spec(1),), "sigmoid", {"y": 1 / (1 + np.exp(-logit))}, data(labels=labels))
    assert (sigmoid.kind, sigmoid.border) == ("binary", 0.5)


def test_targets_make_a_regression_whose_accuracy_is_r_squared() -> None:
    targets = np.arange(ROWS, dtype=float)
    task = find_task((spec(1),), None, {"y": targets[:, None]}, data(targets=targets))
    assert (task.kind, task.metric) == ("regression", "r2")
    assert task.accuracy({"y": targets[:, None]}, targets) == 1.0
    assert task.accuracy({"y": np.full((ROWS, 1), targets.mean())}, targets) == pytest.approx(0.0)
    assert task.accuracy({"y": -targets[:, None]}, targets) == 0.0, "worse than the mean is no better than it"
    off = targets[:, None] + np.array([[0.1], [-0.1]] * 3)
    assert task.agreement({"y": targets[:, None]}, {"y": off}) == pytest.approx(1 - 0.06 / 17.5)


def test_an_output_that_is_not_finite_explains_nothing() -> None:
    task = Task(kind="regression", output="y")
    broken = np.arange(6.0)[:, None].copy()
    broken[:3] = np.nan
    assert task.agreement({"y": np.arange(6.0)[:, None]}, {"y": broken}) == pytest.approx(0.5)


def test_many_probabilities_at_once_are_decided_one_by_one() -> None:
    outputs = (spec(10, 4, name="a"), spec(10, 8, name="b"))
    answers = {"a": softmax(logits(10, 4)), "b": softmax(logits(10, 8))}
    task = find_task(outputs, "sigmoid", answers, data())
    assert (task.kind, task.metric) == ("detection", None)
    turned = {"a": answers["a"].copy(), "b": answers["b"]}
    turned["a"][0, 0] = 1 - np.round(turned["a"][0, 0])
    assert 0.98 < task.agreement(answers, turned) < 1.0
    assert task.truth(data()) is None


def test_labels_that_such_outputs_cannot_be_measured_by_are_refused_with_the_way_around() -> None:
    with pytest.raises(LabelMismatch, match=r"e\.npz: label holds one class a row, but .* leave label out"):
        find_task((spec(10, 4),), None, {"y": logits(10, 4)}, data(labels=LABELS))
    with pytest.raises(LabelMismatch, match=r"classes up to 2, .* give numbers to be predicted as target"):
        find_task((spec(1),), None, {"y": logits(1)}, data(labels=LABELS))
    with pytest.raises(LabelMismatch, match="target has shape"):
        find_task((spec(2),), None, {"y": logits(2)}, data(targets=np.zeros(ROWS)))


def test_nan_says_neither_yes_nor_no() -> None:
    """Mostly "no" is what detectors and rare classes are: a model of NaN would agree with that."""
    nan, no = np.full((ROWS, 1), np.nan), np.full((ROWS, 1), -3.0)
    binary = Task(kind="binary", output="y")
    assert binary.accuracy({"y": no}, np.zeros(ROWS, int)) == 1.0
    assert binary.accuracy({"y": nan}, np.zeros(ROWS, int)) == 0.0
    for kind in ("binary", "detection"):
        task = Task(kind=kind, output="y", probabilities=True)  # type: ignore[arg-type]
        assert task.agreement({"y": no}, {"y": nan}) == 0.0
        assert task.agreement({"y": nan}, {"y": nan}) == 1.0


def test_the_same_infinities_agree_where_outputs_are_plain_numbers() -> None:
    values = np.arange(6.0)[:, None].copy()
    values[0] = -np.inf
    task = Task(kind="regression", output="y")
    assert task.agreement({"y": values}, {"y": values.copy()}) == 1.0
    assert task.agreement({"y": values}, {"y": np.abs(values)}) == pytest.approx(5 / 6)


def test_sigmoids_without_a_class_for_each_row_are_decided_one_by_one() -> None:
    values = 1 / (1 + np.exp(-logits(4)))
    assert find_task((spec(4),), "sigmoid", {"y": values}, data()).kind == "detection"
    assert find_task((spec(4),), "sigmoid", {"y": values}, data(labels=LABELS)).kind == "classification"


def test_a_source_has_skill_where_it_is_better_than_a_constant_answer() -> None:
    right = np.eye(3)[LABELS]
    classes = Task(kind="classification", output="y", classes=3)
    assert classes.is_skilled({"y": right}, LABELS)
    assert not classes.is_skilled({"y": right}, (LABELS + 1) % 3), "labels in another order"
    assert not classes.is_skilled({"y": right}, np.zeros(ROWS, int))
    numbers = Task(kind="regression", output="y")
    values = np.arange(ROWS, dtype=float)[:, None]
    assert numbers.is_skilled({"y": values}, values)
    assert not numbers.is_skilled({"y": values}, values * 1000), "targets in another unit"


def test_a_row_with_nan_decides_for_no_class() -> None:
    outputs = np.array([[0.0, 1.0], [np.nan, 1.0], [1.0, 0.0]])
    assert decisions(outputs).tolist() == [1, -1, 0]
    task = Task(kind="classification", output="y", classes=2)
    assert task.accuracy({"y": outputs}, np.array([1, 1, 0])) == pytest.approx(2 / 3)


def test_what_the_shapes_cannot_tell_can_be_asked_for() -> None:
    task = find_task((spec(3),), None, {"y": logits(3)}, data(), "regression")
    assert (task.kind, task.classes) == ("regression", 0)
    assert find_task((spec(3),), "softmax", {"y": softmax(logits(3))}, data(), "classification").probabilities
    for asked, shape, message in (
        ("classification", (1,), "one number a row has no classes"),
        ("binary", (3,), "3 numbers a row are no yes or no"),
        ("detection", (3,), "no probabilities"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            find_task((spec(*shape),), None, {"y": logits(*shape)}, data(), asked)  # type: ignore[arg-type]
    with pytest.raises(LabelMismatch, match="a regression model is measured by target"):
        find_task((spec(3),), None, {"y": logits(3)}, data(labels=LABELS), "regression")
