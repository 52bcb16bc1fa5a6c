"""Both arms over seeds, on vectors whose labels a small net learns in a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.data import Dataset
from converters.distilling import Budget, Settings, Student, choose_student, distil_over_seeds, student_from
from converters.distilling.experiment import Outcome
from converters.distilling.page import page
from converters.distilling.teachers import open_teacher, to_logits
from converters.errors import InvalidRequest, LabelMismatch, NonFiniteData, UnsupportedModel, WrongNames, WrongShape
from converters.sources.keras import KerasSource
from converters.sources.sklearn import SklearnSource

DIRECTIONS = np.random.default_rng(9).normal(0, 1, (5, 3))
QUICK = Settings(epochs=4, batch_size=32, learning_rate=2e-2)


def rows(count: int, seed: int, *, labelled: bool = True, noise: float = 0.0, groups: bool = False) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, 5)).astype(np.float32)
    y = (x @ DIRECTIONS).argmax(axis=1)
    wrong = rng.uniform(size=count) < noise
    y = np.where(wrong, rng.integers(0, 3, count), y)
    return Dataset(
        name=f"rows{seed}",
        inputs={"row": x},
        labels=y if labelled else None,
        groups=np.arange(count) % 7 if groups else None,
    )


def truth(x: np.ndarray) -> np.ndarray:
    return 5 * x @ DIRECTIONS


def small(keras: Any) -> Student:
    def build() -> Any:
        row = keras.Input((5,), name="row")
        return keras.Model(row, keras.layers.Dense(3)(keras.layers.Dense(8, activation="relu")(row)))

    return student_from(build, "small")


@pytest.fixture(scope="module")
def outcome(keras: Any) -> Outcome:
    said: list[str] = []
    made = distil_over_seeds(
        truth,
        small(keras),
        rows(40, 1, noise=0.5, groups=True),
        pool=rows(300, 2),
        evaluation=rows(200, 3),
        seeds=(4, 5),
        settings=QUICK,
        say=lambda text, _done, _total: said.append(text),
    )
    assert said[-1] == "training distilled, seed 5 of [4, 5]"
    return made


def test_both_arms_have_the_same_seeds_and_updates(outcome: Outcome) -> None:
    report = outcome.report
    assert [(run.arm, run.seed) for run in report.runs] == [
        ("labels", 4),
        ("labels", 5),
        ("distilled", 4),
        ("distilled", 5),
    ]
    assert report.rows.labelled + report.rows.validation == 40
    assert report.rows.unlabelled == 300
    assert report.updates == -(-(300 + report.rows.labelled) // 32) * 4


def test_a_teacher_that_knows_better_and_a_pool_pay(outcome: Outcome) -> None:
    report = outcome.report
    assert report.metric == "accuracy"
    assert report.teacher.evaluation == 1.0
    assert report.labels is not None
    assert report.comparison is not None
    assert report.distilled.mean > report.labels.mean + 0.1
    assert report.comparison.mean > 10
    assert report.kept.arm == "distilled"


def test_the_kept_student_is_the_best_by_validation_and_answers_as_reported(outcome: Outcome) -> None:
    report, evaluation = outcome.report, rows(200, 3)
    chosen = [run for run in report.runs if run.arm == report.kept.arm]
    kept = next(run for run in chosen if run.seed == report.kept.seed)
    assert kept.validation == max(run.validation for run in chosen)
    reached = (np.asarray(outcome.model(evaluation.inputs["row"])).argmax(axis=1) == evaluation.labels).mean()
    assert reached == pytest.approx(kept.evaluation)


def test_validation_without_a_file_is_held_out_by_group_and_cautioned(outcome: Outcome) -> None:
    assert outcome.report.rows.validation_from == "training"
    assert outcome.report.rows.groups_split
    assert any("flattered" in warning for warning in outcome.report.warnings)


def test_rows_that_were_learned_from_and_labels_that_are_not_used_are_said(keras: Any) -> None:
    said: list[str] = []
    training = rows(40, 1, groups=True)
    distil_over_seeds(
        truth,
        small(keras),
        training,
        pool=rows(30, 2),
        validation=rows(60, 5),
        evaluation=training.at(np.arange(20)),
        seeds=(1,),
        settings=Settings(epochs=1),
        warn=said.append,
    )
    assert "20 of 20 evaluation rows are in the training data too; they flatter it" in said
    assert "7 groups are in both the training and the evaluation data" in said
    assert any(text.startswith("the pool's labels are not used") for text in said)


def test_the_page_shows_every_run_and_loads_nothing(outcome: Outcome) -> None:
    made = page(outcome.report)
    assert made.count("<circle") == 4
    assert outcome.report.comparison is not None
    assert outcome.report.comparison.sentence.split(" (")[0] in made
    assert "src=" not in made
    assert "<script" not in made


def test_a_teacher_that_is_no_better_is_said_before_it_teaches(keras: Any) -> None:
    told: list[str] = []

    def confused(x: np.ndarray) -> np.ndarray:
        told.append("asked")
        return -truth(x)

    report = distil_over_seeds(
        confused,
        small(keras),
        rows(120, 1),
        validation=rows(60, 5),
        evaluation=rows(60, 3),
        seeds=(1,),
        settings=QUICK,
        warn=told.append,
    ).report
    assert "a teacher that is no better rarely helps" in told[-1]
    assert told.count("asked") == 3, "once a file"
    assert report.kept.arm == "labels"
    assert report.comparison is not None
    assert report.comparison.verdict == "unknown"


def test_without_labels_the_teacher_alone_is_learned_from_and_agreement_is_measured(keras: Any) -> None:
    source = KerasSource(small(keras).build(3), name="cloud")
    report = distil_over_seeds(
        source,
        small(keras),
        rows(80, 1, labelled=False),
        evaluation=rows(60, 3, labelled=False),
        seeds=(1,),
        settings=QUICK,
    ).report
    assert (report.metric, report.labels, report.comparison) == ("agreement", None, None)
    assert (report.teacher.kind, report.teacher.name, report.teacher.evaluation) == ("keras", "cloud", None)
    assert report.rows.labelled == 0
    assert any("no labels" in warning for warning in report.warnings)


def test_a_regression_learns_values_in_their_units(keras: Any) -> None:
    def prices(x: np.ndarray) -> np.ndarray:
        return 5000 + 1000 * x[:, :1]

    def table(count: int, seed: int) -> Dataset:
        data = rows(count, seed, labelled=False)
        noise = np.random.default_rng(seed).normal(0, 800, (count, 1))
        return Dataset(name=data.name, inputs=data.inputs, targets=prices(data.inputs["row"]) + noise)

    report = distil_over_seeds(
        prices,
        lambda inputs, outputs, answers: choose_student(
            inputs, outputs, Budget(max_parameters=400), regression_answers=answers
        ),
        table(60, 1),
        pool=rows(300, 2, labelled=False),
        evaluation=table(100, 3),
        seeds=(1,),
        settings=QUICK,
    ).report
    assert report.metric == "r2"
    assert report.distilled.mean > 0.4
    assert report.teacher.evaluation == pytest.approx(0.6, abs=0.15)


def test_probabilities_become_logits() -> None:
    p = np.array([[0.7, 0.3], [1.0, 0.0]])
    soft = np.exp(to_logits(p)) / np.exp(to_logits(p)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soft, p, atol=1e-5)
    assert np.isfinite(to_logits(p)).all()
    logits = np.array([[3.0, -1.0], [0.0, 2.0]])
    np.testing.assert_allclose(to_logits(logits), logits)
    np.testing.assert_allclose(to_logits(np.array([[0.5], [0.9]])), [[0, 0], [0, np.log(9)]], rtol=1e-6)
    np.testing.assert_allclose(to_logits(np.array([[-2.0], [3.0]])), [[0, -2], [0, 3]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"seeds": ()}, InvalidRequest, "seeds"),
        ({"seeds": (1, 1)}, InvalidRequest, "different"),
        ({"settings": Settings(epochs=0)}, InvalidRequest, "epochs"),
        ({"teacher": lambda x: np.zeros((3, 3))}, WrongShape, r"answered with shape \(3, 3\)"),
        ({"teacher": lambda x: np.full((len(x), 3), np.nan)}, NonFiniteData, "hold NaN"),
        ({"teacher": lambda x: np.zeros(len(x), np.int64)}, UnsupportedModel, "decided classes"),
        ({"teacher": 3}, UnsupportedModel, "not int"),
        ({"teacher": lambda x: np.zeros((len(x), 2), np.float32)}, LabelMismatch, "the teacher has classes 0 to 1"),
        ({"pool": Dataset(name="p", inputs={"other": np.zeros((9, 5), np.float32)})}, WrongNames, "missing: row"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_distilled_is_refused_before_training(
    keras: Any, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"teacher": truth, "student": small(keras), "training": rows(40, 1), "evaluation": rows(40, 3)} | change
    with pytest.raises(error, match=message):
        distil_over_seeds(given.pop("teacher"), given.pop("student"), given.pop("training"), **given)


def test_decision_scores_teach_with_a_caution_and_probabilities_without() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    data = rows(60, 1)
    vectors, forest = (
        open_teacher(SklearnSource(estimator.fit(data.inputs["row"], data.labels)))
        for estimator in (SVC(), LogisticRegression())
    )
    assert vectors.kind == "sklearn"
    assert "no logits" in (vectors.caution or "")
    assert forest.caution is None
    soft = np.exp(forest.answer({"x": data.inputs["row"]}))
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-4)


def test_an_estimator_is_no_source_and_the_way_around_is_said() -> None:
    class Forest:
        def predict(self, x: np.ndarray) -> np.ndarray:
            return x

    with pytest.raises(UnsupportedModel, match="predict_proba"):
        open_teacher(Forest())
