"""A tiny classifier on synthetic windows, converted once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import ConvertedArtifact, Dataset, KerasSource, Report, convert
from converters.quiet import load_tool

LENGTH, AXES, CLASSES = 32, 3, 3
LABELS = ("slow", "medium", "fast")
# One axis a thousand times wider than the others, and far from zero: what tools' INT8 defaults fail on.
SCALE = np.array([1.0, 1000.0, 0.01], np.float32)
OFFSET = np.array([0.0, 5000.0, 0.0], np.float32)


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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted") / "waves"


@pytest.fixture(scope="session")
def artifacts(
    source: KerasSource, evaluation: Dataset, calibration: Dataset, folder: Path
) -> dict[str, ConvertedArtifact]:
    made = convert(
        source,
        calibration=calibration,
        evaluation=evaluation,
        confidence=dataset(200, 4, name="confidence"),
        out=folder,
    )
    return {artifact.kind: artifact for artifact in made}


@pytest.fixture(scope="session")
def report(source: KerasSource, artifacts: dict[str, ConvertedArtifact]) -> Report:
    return Report.of(source, list(artifacts.values()))
