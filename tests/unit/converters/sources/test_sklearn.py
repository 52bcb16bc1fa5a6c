from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from converters.errors import PickleRefused, UnsupportedModel, UnsupportedOperator
from converters.sources.opening import open_source
from converters.sources.sklearn import SklearnSource

IRIS, CANCER, SUGAR = (
    load(return_X_y=True) for load in (load_iris, load_breast_cancer, load_diabetes)
)  # three classes, two classes, a number

TWO_QUESTIONS = np.stack([IRIS[1] > 0, IRIS[1] > 1], axis=1)


def fitted(estimator: Any, data: tuple[np.ndarray, np.ndarray]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations are enough here
        return estimator.fit(data[0].astype(np.float32), data[1])


@pytest.mark.parametrize(
    ("make", "data", "output", "width"),
    [
        (lambda: RandomForestClassifier(5, random_state=0), IRIS, "probabilities", 3),
        (
            lambda: make_pipeline(StandardScaler(), MLPClassifier(max_iter=5, random_state=0)),
            CANCER,
            "probabilities",
            2,
        ),
        (lambda: GridSearchCV(LogisticRegression(max_iter=20), {"C": [1.0, 2.0]}, cv=2), IRIS, "probabilities", 3),
        (lambda: SVC(), CANCER, "scores", 2),
        (lambda: make_pipeline(StandardScaler(), LinearSVC(max_iter=50)), CANCER, "scores", 2),
        (lambda: RidgeClassifier(), CANCER, "scores", 2),
        (lambda: SVC(), IRIS, "scores", 3),
        (lambda: RandomForestRegressor(5, random_state=0), SUGAR, "value", 1),
        (lambda: Ridge(), (SUGAR[0], np.stack([SUGAR[1]] * 2, axis=1)), "value", 2),
    ],
    ids=["forest", "mlp", "search", "svc-2", "linear-2", "ridge-2", "svc-3", "regressor", "two-values"],
)
def test_an_estimator_and_its_onnx_give_the_same_answers_under_the_same_names(
    make: Callable[[], Any], data: tuple[np.ndarray, np.ndarray], output: str, width: int
) -> None:
    source = SklearnSource(fitted(make(), data))
    x = data[0][:50].astype(np.float32)
    assert source.inputs[0].shape == ("batch", x.shape[1])
    assert source.outputs[0].shape == ("batch", width)
    assert source.outputs[0].name == output
    assert source.activation == ("softmax" if output == "probabilities" else None)
    assert source.parameters > 0
    answers = source.predict({"x": x})[output]
    assert answers.shape == (50, width)
    if output != "value":
        assert (answers.argmax(axis=1) == source.estimator.predict(x)).all()
    model = source.to_onnx()
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model)
    assert [each.name for each in session.get_outputs()] == [output]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], answers, rtol=1e-4, atol=1e-3)


def test_the_onnx_of_an_estimator_is_a_source_too(tmp_path: Path) -> None:
    source = SklearnSource(fitted(LogisticRegression(max_iter=20), IRIS))
    (tmp_path / "iris.onnx").write_bytes(source.to_onnx())
    again = open_source(tmp_path / "iris.onnx")
    assert (again.inputs, again.outputs) == (source.inputs, source.outputs)


def test_what_skl2onnx_cannot_translate_is_named_with_the_way_to_every_target() -> None:
    source = SklearnSource(fitted(HistGradientBoostingClassifier(max_iter=3), IRIS))
    assert source.predict({"x": IRIS[0][:3]})["probabilities"].shape == (3, 3)
    with pytest.raises(UnsupportedOperator, match="edgeship-convert distill") as raised:
        source.to_onnx()
    assert raised.value.operator == "HistGradientBoostingClassifier"


def test_class_labels_are_told_in_the_order_of_the_columns() -> None:
    names = np.array(["setosa", "versicolor", "virginica"])[IRIS[1]]
    source = SklearnSource(fitted(LogisticRegression(max_iter=20), (IRIS[0], names)))
    assert source.classes == ("setosa", "versicolor", "virginica")
    onnx.checker.check_model(onnx.load_from_string(source.to_onnx()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogisticRegression(), "is not fitted"),
        (lambda: fitted(KMeans(2, n_init=1), IRIS), "neither a regressor nor a classifier"),
        (
            lambda: fitted(MultiOutputClassifier(LogisticRegression()), (IRIS[0], np.stack([IRIS[1] > 0] * 2, 1))),
            "several",
        ),
        (
            lambda: make_pipeline(ColumnTransformer([("town", OneHotEncoder(), [0])]), LogisticRegression()).fit(
                np.array([["a"], ["b"]], object), [0, 1]
            ),
            "Encode texts and categories before the model",
        ),
        (lambda: {"weights": 1}, "dict is not a scikit-learn estimator"),
    ],
    ids=["unfitted", "clusters", "several answers", "texts", "dict"],
)
def test_what_is_no_fitted_classifier_or_regressor_of_numbers_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        SklearnSource(make())


@pytest.mark.parametrize("name", ["net.pkl", "net.joblib"])
def test_a_pickle_opens_only_when_its_origin_is_trusted(name: str, tmp_path: Path) -> None:
    import joblib

    joblib.dump(fitted(Ridge(), SUGAR), tmp_path / name, compress=3 if name.endswith("joblib") else 0)
    with pytest.raises(PickleRefused, match=r"--trust-pickle.*skops.*skl2onnx"):
        open_source(tmp_path / name)
    source = open_source(tmp_path / name, trust_pickle=True)
    assert (source.kind, source.name, source.parameters) == ("sklearn", "net", 10)
