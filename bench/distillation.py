"""Does distilling pay? The same student from labels alone and from a teacher, over splits and seeds.

``digits``: scikit-learn's 1,797 digits. 80 labelled rows (20 more choose the epoch), some 1,200 rows without labels,
500 held out; the teacher is a support vector machine that saw the same 80 rows, each shifted by a pixel in nine ways.
Its temperature, 0.5, was chosen on other splits. ``digits, shifted``: both students see those shifted rows with their
labels too, so that only the answers differ. ``digits, T=4``: the temperature that is usual for networks, which
flattens the machine's decision scores. ``smartwatch``: the student of the demo on every labelled window, from its
teacher; seeds only.

The interval of ``digits`` is over the means of splits, each with its own rows and teacher; that of ``smartwatch`` is
over seeds, since its subjects are divided once and for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data import Dataset
from converters.distilling import DistillingReport, Settings, compare, distil_over_seeds, student_from
from converters.quiet import load_tool
from converters.sources.keras import KerasSource
from converters.sources.sklearn import INPUT, SklearnSource

SIDE, TEST, LABELLED, CHOOSING = 8, 500, 80, 20
SHIFTS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
FIRST_SPLIT = 10  # earlier ones were looked at while this was written
HOT = Settings(epochs=40, temperature=4.0)
DIGITS = Settings(epochs=40, temperature=0.5)
WATCH = Settings(temperature=2.0, alpha=0.5, epochs=25, learning_rate=4e-3)  # as the demo trains it
CACHE = Path("out/bench/smartwatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """One split: rows as float32 ``(rows, 64)`` in 0 to 1."""

    labelled: Dataset
    shifted: Dataset
    validation: Dataset
    pool: Dataset
    test: Dataset


def run(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, list[float]]]:
    splits, seeds = (1, 2) if quick else (5, 5)
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    samples: dict[str, list[float]] = {}
    few = min(seeds, 3)
    for setting, name, count, how, shifted in (
        ("digits", "digits", seeds, DIGITS, False),
        ("digits, shifted", "digits_shifted", few, DIGITS, True),
        ("digits, T=4", "digits_hot", few, HOT, False),
    ):
        reports = []
        for number, split in enumerate(_splits(splits)):
            reports.append(_digits(split, count, how, shifted=shifted))
            rows.append(_row(setting, number, reports[-1]))
        found = compare([_mean(report.labels) for report in reports], [_mean(report.distilled) for report in reports])
        metrics |= _metrics(name, found)
        samples |= _samples(name, reports)
        print(f"{setting}, over splits: {found.sentence.replace('seeds', 'splits')}", flush=True)
    report = _smartwatch(seeds)
    assert report.comparison is not None
    rows.append(_row("smartwatch", 0, report))
    metrics |= _metrics("smartwatch", report.comparison)
    samples |= _samples("smartwatch", [report])
    return metrics, rows, samples


def _splits(count: int) -> Iterator[Digits]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    for seed in range(FIRST_SPLIT, FIRST_SPLIT + count):
        order = np.random.default_rng(seed).permutation(len(x))
        test, few, pool = order[:TEST], order[TEST : TEST + LABELLED + CHOOSING], order[TEST + LABELLED + CHOOSING :]
        taught, choosing = few[:LABELLED], few[LABELLED:]
        yield Digits(
            labelled=_data("labelled", x[taught], y[taught]),
            shifted=_data("shifted", _shifted(x[taught]), np.tile(y[taught], len(SHIFTS))),
            validation=_data("validation", x[choosing], y[choosing]),
            pool=_data("pool", x[pool], None),
            test=_data("test", x[test], y[test]),
        )


def _digits(split: Digits, seeds: int, settings: Settings, *, shifted: bool) -> DistillingReport:
    from sklearn.svm import SVC

    assert split.shifted.labels is not None
    teacher = SVC(C=10).fit(split.shifted.inputs[INPUT], split.shifted.labels)
    return distil_over_seeds(
        SklearnSource(teacher),
        student_from(_mlp, "mlp-64-32"),
        split.shifted if shifted else split.labelled,
        pool=split.pool,
        validation=split.validation,
        evaluation=split.test,
        seeds=range(seeds),
        settings=settings,
    ).report


def _smartwatch(seeds: int) -> DistillingReport:
    from examples.smartwatch import models, training
    from examples.smartwatch.data import Windows, load

    windows, _ = load()
    train = windows.of("train")
    trained = training.train(training.SEEDS[0], train, CACHE, lambda text: print(f"  {text}", flush=True))

    def data(name: str, part: Windows) -> Dataset:
        return Dataset(name=name, inputs={"window": part.x}, labels=part.y, groups=part.subject)

    return distil_over_seeds(
        KerasSource(trained.teacher),
        student_from(lambda: models.student(train.x), "exercise_student"),
        data("train", train),
        validation=data("val", windows.of("val")),
        evaluation=data("test", windows.of("test")),
        seeds=range(seeds),
        settings=WATCH,
    ).report


def _mlp() -> Any:
    keras = load_tool("keras")
    pixels = keras.Input((SIDE * SIDE,), name=INPUT)
    h = keras.layers.Dense(64, activation="relu")(pixels)
    return keras.Model(pixels, keras.layers.Dense(10)(keras.layers.Dense(32, activation="relu")(h)))


def _shifted(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every row moved by at most one pixel in nine ways; what moves in is empty."""
    images = np.pad(x.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    moved = [images[:, 1 - down : 1 - down + SIDE, 1 - right : 1 - right + SIDE] for down, right in SHIFTS]
    return np.concatenate(moved).reshape(-1, SIDE * SIDE)


def _data(name: str, x: NDArray[np.float32], y: NDArray[np.int64] | None) -> Dataset:
    return Dataset(name=name, inputs={INPUT: x}, labels=y)


def _row(setting: str, split: int, report: DistillingReport) -> dict[str, Any]:
    comparison, labels = report.comparison, report.labels
    assert comparison is not None
    assert labels is not None
    row = {
        "setting": setting,
        "split": split,
        "teacher": _rounded(report.teacher.evaluation),
        "labels_alone": _rounded(labels.mean),
        "labels_alone_std": _rounded(labels.std),
        "distilled": _rounded(report.distilled.mean),
        "distilled_std": _rounded(report.distilled.std),
        "points": round(comparison.mean, 2),
        "better": f"{comparison.better} of {len(comparison.differences)}",
        "verdict": comparison.verdict,
        "parameters": report.student.parameters,
        "labelled": report.rows.labelled,
        "unlabelled": report.rows.unlabelled,
        "evaluation": report.rows.evaluation,
        "updates": report.updates,
    }
    print(
        f"{setting:16} {split}: teacher {row['teacher']}, labels alone {row['labels_alone']} ± "
        f"{row['labels_alone_std']}, distilled {row['distilled']} ± {row['distilled_std']}: {comparison.sentence}",
        flush=True,
    )
    return row


def _metrics(name: str, found: Any) -> dict[str, Any]:
    return {
        f"{name}_points": round(found.mean, 2),
        f"{name}_low": _rounded(found.low, 2),
        f"{name}_high": _rounded(found.high, 2),
        f"{name}_verdict": found.verdict,
    }


def _samples(name: str, reports: list[DistillingReport]) -> dict[str, list[float]]:
    return {
        f"{name}_{arm}": [run.evaluation for report in reports for run in report.runs if run.arm == arm]
        for arm in ("labels", "distilled")
    }


def _mean(spread: Any) -> float:
    return float(spread.mean)


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
