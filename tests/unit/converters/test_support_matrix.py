"""The fast core of the support matrix: every route that needs no helper environment, run on small models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import Dataset, KerasSource, Request, Row, open_source, run
from converters.matrix import PRECISIONS_OF
from converters.quiet import load_tool, quiet
from converters.routes import NO_ROUTE, ROUTES, make_float
from converters.targets import FILE_SUFFIX, TARGETS
from tests.unit.converters.conftest import LABELS, dataset, request_of

HERE = [route for route in ROUTES if route.environment is None]
Kinds = dict[str, Any]


@pytest.fixture(scope="module")
def sources(student: Any, source: KerasSource, tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    """The waves model as each kind of source, and a forest."""
    folder = tmp_path_factory.mktemp("sources")
    with quiet("exporting a SavedModel"):
        student.export(folder / "saved", verbose=False)
    made: Kinds = {"keras": source, "savedmodel": open_source(folder / "saved", name="waves")}
    for kind in TARGETS:
        path = folder / f"waves{FILE_SUFFIX[kind]}"
        path.write_bytes(make_float(source, kind, lambda *step: None).data)
        made[kind] = open_source(path, name="waves")
    return made


@pytest.fixture(scope="module")
def forest() -> tuple[Any, Dataset]:
    from converters.sources.sklearn import SklearnSource

    ensemble = load_tool("sklearn.ensemble")
    data = dataset(300, 2)
    rows = data.inputs["window"].reshape(300, -1)
    fitted = ensemble.RandomForestClassifier(10, max_depth=4, random_state=0).fit(rows, data.labels)
    source = SklearnSource(fitted, name="forest")
    return source, Dataset(name="e", inputs={source.inputs[0].name: rows}, labels=data.labels)


def asked(kind: str, sources: Kinds, forest: tuple[Any, Dataset], out: Path, targets: tuple[str, ...]) -> Request:
    if kind == "sklearn":
        source, rows = forest
        return request_of(source, out, evaluation=rows, calibration=None, confidence=None, targets=targets,
                          precisions=("fp32",), labels=(), max_accuracy_drop=0.01)  # fmt: skip
    source = sources[kind]
    name = source.inputs[0].name
    renamed = {
        split: Dataset(name=split, inputs={name: data.inputs["window"]}, labels=data.labels)
        for split, data in (("evaluation", dataset(300, 2)), ("calibration", dataset(200, 3)))
    }
    precisions = tuple(dict.fromkeys(each for target in targets for each in PRECISIONS_OF[target]))
    return request_of(source, out, **renamed, confidence=None, targets=targets, precisions=precisions,
                      max_accuracy_drop=0.02, fallback=False)  # fmt: skip


@pytest.mark.parametrize("kind", list(dict.fromkeys(route.source for route in HERE)))
def test_every_route_that_needs_no_other_environment_reaches_what_the_matrix_promises(
    kind: str, sources: Kinds, forest: tuple[Any, Dataset], tmp_path: Path
) -> None:
    targets = tuple(route.target for route in HERE if route.source == kind)
    made = run(asked(kind, sources, forest, tmp_path / "out", targets))
    promised = {
        (target, precision)
        for target in targets
        for precision in (("fp32",) if kind == "sklearn" else PRECISIONS_OF[target])
    }
    reached = {(row.target, row.asked) for row in made.report.artifacts if row.status == "ok"}
    assert promised - reached == set(), [row.reason for row in made.report.artifacts if row.status != "ok"]
    for row in made.report.artifacts:
        _check(row, promised)
    if kind != "sklearn":
        assert made.bundle is not None
        assert made.bundle.manifest.labels == LABELS


def _check(row: Row, promised: set[tuple[str, str]]) -> None:
    if (row.target, row.asked) not in promised:
        assert row.status == "refused", "a precision that a target does not have is refused, never an error"
        return
    assert row.precision == row.asked
    assert row.bytes is not None
    assert row.source_bytes is not None
    share = row.int8_weight_share
    assert share is not None
    assert (share >= 0.9) == row.precision.startswith("int8")


@pytest.mark.parametrize(("kind", "target"), list(NO_ROUTE))
def test_a_pair_without_a_route_is_refused_before_any_work_with_the_way_around(
    kind: str, target: str, sources: Kinds, forest: tuple[Any, Dataset], tmp_path: Path
) -> None:
    began: list[str] = []
    request = asked(kind, sources, forest, tmp_path / "out", (target,))
    made = run(request, say=lambda text, done, total: began.append(text))
    assert {row.status for row in made.report.artifacts} == {"refused"}
    assert made.exit_code == 4
    assert not any("converting" in text for text in began)
    assert ("distil" if kind == "sklearn" else "convert from the model") in (made.report.artifacts[0].reason or "")


def test_a_softmax_at_the_end_and_a_number_to_be_predicted_convert_too(keras: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 6)).astype(np.float32)
    layers = keras.layers
    for build, known, task in (
        (lambda h: layers.Softmax(name="y")(layers.Dense(3)(h)), {"labels": x[:, :3].argmax(1)}, "classification"),
        (lambda h: layers.Dense(1, activation="sigmoid", name="y")(h), {"labels": (x[:, 0] > 0).astype(int)}, "binary"),
        (lambda h: layers.Dense(1, name="y")(h), {"targets": x[:, 0] * 3}, "regression"),
    ):  # fmt: skip
        _one_task(keras, x, build, known, task, tmp_path / task)


def _one_task(
    keras: Any, x: np.ndarray, build: Callable[[Any], Any], known: dict[str, np.ndarray], task: str, out: Path
) -> None:
    keras.utils.set_random_seed(1)
    row = keras.Input((6,), name="row")
    model = keras.Model(row, build(keras.layers.Dense(16, activation="relu")(row)))
    loss = {"classification": "sparse_categorical_crossentropy", "binary": "binary_crossentropy"}.get(task, "mse")
    (truth,) = known.values()
    model.compile("adam", loss)
    model.fit(x[:600], truth[:600], epochs=30, verbose=0)
    parts = {
        split: Dataset(name=split, inputs={"row": x[rows]}, **{key: value[rows] for key, value in known.items()})
        for split, rows in (("calibration", slice(0, 600)), ("evaluation", slice(600, 1000)))
    }
    made = run(request_of(KerasSource(model), out, **parts, confidence=None, labels=(), precisions=("int8",),
                          max_accuracy_drop=0.03))  # fmt: skip
    report = made.report
    assert (report.task, made.exit_code) == (task, 0), [row.reason for row in report.artifacts]
    for each in report.artifacts:
        assert each.metric == ("r2" if task == "regression" else "accuracy")
        assert each.accuracy is not None
        assert each.accuracy > 0.7
        assert (each.confidence is not None) == (task == "classification")
    if task == "classification":
        assert {each.confidence.score for each in report.artifacts if each.confidence} == {"probability"}
    else:
        assert any("temperature and threshold" in reason for reason in report.absent)
