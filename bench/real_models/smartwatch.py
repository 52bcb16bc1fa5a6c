"""The student of examples/smartwatch, trained and distilled there, with its windows split by subject."""

from __future__ import annotations

from pathlib import Path

from bench.real_models.folder import Info, save_split
from bench.real_models.packages import PEERS

VERSION = 1


def build(folder: Path) -> Info:
    from examples.smartwatch import data, training

    windows, digest = data.load()
    trained = training.train(training.SEEDS[0], windows.of("train"), PEERS / "trained", lambda text: None)
    trained.student.save(folder / "student.keras")
    validation = windows.of("val")
    # One subject must do for calibration and confidence: every other recording goes to each.
    parts = {
        "training": (windows.of("train"), "subjects 1 to 7"),
        "calibration": (validation.where(validation.recording % 2 == 0), "subject 8, recordings of even number"),
        "confidence": (validation.where(validation.recording % 2 == 1), "subject 8, recordings of odd number"),
        "evaluation": (windows.of("test"), "subjects 9 and 10"),
    }
    splits = {}
    for split, (part, what) in parts.items():
        splits |= save_split(folder, split, what, {"window": part.x}, label=part.y, group=part.subject)
    test = windows.of("test")
    logits = trained.student.predict(test.x, verbose=0)
    return Info(
        name="smartwatch",
        builder=VERSION,
        task="classification",
        files=("student.keras",),
        packages=("seglearn 1.2.5 (watch_dataset.npy)",),
        licenses=("BSD-3-Clause",),
        parameters=trained.student.count_params(),
        convolutional=True,
        synthetic=False,
        notes=(f"Seed {training.SEEDS[0]}; data file sha256 {digest}.",),
        source_score=float((logits.argmax(axis=1) == test.y).mean()),
        splits=splits,
    )
