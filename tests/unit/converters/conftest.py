"""A tiny classifier on synthetic windows, converted once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import Dataset, Description, FeatureSpec, KerasSource, Outcome, Request, Row, run
from converters.quiet import load_tool
from edge_runtime.bundle import Hybrid, TensorSpec, open_bundle

LENGTH, AXES, CLASSES = 32, 3, 3
LABELS = ("slow", "medium", "fast")
# One axis a thousand times wider than the others, and far from zero: what tools' INT8 defaults fail on.
SCALE = np.array([1.0, 1000.0, 0.01], np.float32)
OFFSET = np.array([0.0, 5000.0, 0.0], np.float32)
FEATURES = (
    FeatureSpec(name="mean-x", input="window", reduce="mean", index=0),
    FeatureSpec(name="std-y", input="window", reduce="std", index=1),
)
DESCRIPTION = Description(
    owner="Ann",
    contact="ann@example.com",
    version="1.2.0",
    predicts="How fast a wave is.",
    dataset="synthetic waves",
    known_failures=("waves of two frequencies at once",),
    personal_data=False,
    seeds=(7,),
    units={"window": "g"},
)
HYBRID = Hybrid(
    model="waves-cloud",
    releases=(1,),
    inputs=(TensorSpec(name="context", dtype="float32", shape=("n", 32, 3)),),
)


def windows(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sines whose frequency is the class, with noise: float32 (rows, 32, 3) and int64 (rows,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    time = np.arange(LENGTH)[None, :, None]
    phase = rng.uniform(0, 2 * np.pi, (rows, 1, AXES))
    wave = np.sin(time * (0.3 + 0.35 * labels[:, None, None]) + phase) + rng.normal(0, 1.0, (rows, LENGTH, AXES))
    return (wave * SCALE + OFFSET).astype(np.float32), labels.astype(np.int64)


def dataset(rows: int, seed: int, *, labelled: bool = True, name: str = "rows") -> Dataset:
    x, y = windows(rows, seed)
    return Dataset(name=name, inputs={"window": x}, labels=y if labelled else None)


def small_net(keras: Any, normalization: Any = None) -> Any:
    """Normalization, Conv1D, SeparableConv1D and DepthwiseConv1D with batch normalization; logits named ``logits``."""
    layers = keras.layers
    window = keras.Input((LENGTH, AXES), name="window")
    h = window if normalization is None else normalization(window)
    for make in (
        lambda: layers.Conv1D(16, 5, strides=2, padding="same", use_bias=False),
        lambda: layers.SeparableConv1D(24, 3, padding="same", use_bias=False),
        lambda: layers.DepthwiseConv1D(3, padding="same"),
        lambda: layers.Conv1D(24, 1),
    ):
        h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(make()(h)))
    return keras.Model(window, layers.Dense(CLASSES, name="logits")(layers.GlobalAveragePooling1D()(h)))


@pytest.fixture(scope="session")
def keras() -> Any:
    return load_tool("keras")


@pytest.fixture(scope="session")
def student(keras: Any) -> Any:
    keras.utils.set_random_seed(7)
    x, y = windows(600, 1)
    normalization = keras.layers.Normalization()
    normalization.adapt(x)
    model = small_net(keras, normalization)
    model.compile(
        optimizer=keras.optimizers.Adam(5e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, epochs=10, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="session")
def source(student: Any) -> KerasSource:
    return KerasSource(student, name="waves")


@pytest.fixture(scope="session")
def evaluation() -> Dataset:
    return dataset(300, 2, name="evaluation")


@pytest.fixture(scope="session")
def calibration() -> Dataset:
    return dataset(200, 3, labelled=False, name="calibration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An artifact of the session's conversion: its row of the report, and its file out of the bundle."""

    row: Row
    path: Path

    @property
    def target(self) -> str:
        return self.row.target

    @property
    def precision(self) -> str:
        return self.row.precision

    @property
    def operators(self) -> tuple[str, ...]:
        return self.row.operators


def request_of(source: Any, out: Path, **changes: Any) -> Request:
    """A request for the waves model; ``changes`` replace its fields."""
    known: dict[str, Any] = {
        "source": source,
        "name": "waves",
        "release": 1,
        "out": out,
        "calibration": dataset(200, 3, labelled=False, name="calibration"),
        "evaluation": dataset(300, 2, name="evaluation"),
        "confidence": dataset(400, 4, name="confidence"),
        "precisions": ("fp32", "int8"),
        "labels": LABELS,
        "peak_memory": False,
    }
    return Request(**(known | changes))


@pytest.fixture(scope="session")
def outcome(source: KerasSource, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The waves model in three targets and two precisions, with all that a bundle can hold."""
    half = np.where(np.arange(300) < 150, "first half", "second half")
    evaluation = replace(dataset(300, 2, name="evaluation"), segments={"time": half})
    request = request_of(
        source,
        tmp_path_factory.mktemp("converted") / "waves",
        evaluation=evaluation,
        training=dataset(600, 1, name="training"),
        edge_cases={"loud": loud(60, 9)},
        description=DESCRIPTION,
        features=FEATURES,
        hybrid=HYBRID,
    )
    return run(request, clock=lambda: datetime(2026, 11, 22, 23, 0, 0, tzinfo=UTC))


def loud(rows: int, seed: int) -> Dataset:
    """Waves of twice the size."""
    data = dataset(rows, seed, name="loud")
    window = (data.inputs["window"] - OFFSET) * 2 + OFFSET
    return replace(data, inputs={"window": window.astype(np.float32)})


@pytest.fixture(scope="session")
def artifacts(outcome: Outcome, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Each artifact's row and file, by ``target/precision``."""
    assert outcome.bundle is not None
    folder = tmp_path_factory.mktemp("artifacts")
    bundle = open_bundle(outcome.bundle.path)
    made = {}
    for row in outcome.report.artifacts:
        assert row.file is not None, row
        (folder / row.file).write_bytes(bundle.read(row.file))
        made[row.kind] = Made(row=row, path=folder / row.file)
    return made
