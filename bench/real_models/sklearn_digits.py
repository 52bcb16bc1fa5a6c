"""Three scikit-learn estimators on scikit-learn's own digits (8×8, 0 to 16), as joblib writes them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np

from bench.real_models.folder import Info, save_split

VERSION = 1
BORDERS = {"training": (0, 1000), "calibration": (1000, 1200), "confidence": (1200, 1350), "evaluation": (1350, 1797)}


def build(folder: Path) -> Info:
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.svm import SVC

    digits = load_digits()
    x, y = digits.data.astype(np.float32), digits.target.astype(np.int64)
    splits = {}
    for split, (start, end) in BORDERS.items():
        what = f"rows {start} to {end - 1} in the file's order, in which a writer's digits follow one another"
        splits |= save_split(folder, split, what, {"x": x[start:end]}, label=y[start:end])
    estimators = {
        "random-forest.joblib": RandomForestClassifier(200, random_state=5),
        "svc.joblib": SVC(gamma=0.001, C=10),
        "hist-gradient-boosting.joblib": HistGradientBoostingClassifier(max_iter=60, random_state=5),
    }
    notes, scores = [], {}
    for name, estimator in estimators.items():
        estimator.fit(x[:1000], y[:1000])
        joblib.dump(estimator, folder / name)
        scores[name] = float(estimator.score(x[1350:], y[1350:]))
        notes.append(f"`{name}`: accuracy {scores[name]:.4f} on the evaluation rows")
    return Info(
        name="sklearn-digits",
        builder=VERSION,
        task="classification",
        files=tuple(estimators),
        packages=(f"scikit-learn {version('scikit-learn')}",),
        licenses=("BSD-3-Clause",),
        parameters=None,
        convolutional=False,
        synthetic=False,
        notes=tuple(notes),
        source_score=next(iter(scores.values())),
        splits=splits,
    )
