"""Two small networks on tables with wide ranges and normalization inside the graph: what INT8 defaults get wrong.

Both tables are in nannyml 0.13.1. Employment: US census answers of Massachusetts, 2015 to 2018, split by year.
Regression: the median income of Californian block groups from their other columns, split by place.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.real_models.folder import Info, save_split
from bench.real_models.packages import environment, package, run_in

if TYPE_CHECKING:
    import keras

VERSION = 1
CODES = (
    "AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG", "MIL", "ANC", "NATIVITY", "DEAR", "DEYE", "DREM", "SEX",
    "RAC1P",
)  # fmt: skip
YEARS = {"training": 2015, "calibration": 2016, "confidence": 2017, "evaluation": 2018}
ROWS = {"training": 40_000, "calibration": 2_000, "confidence": 2_000, "evaluation": 4_000}
HOUSES = ("HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
INCOME = "MedInc"  # in 10,000 dollars
CELL = 0.5  # degrees: neighboring block groups are alike, so a split is of whole cells
SHARES = {"training": 0.6, "calibration": 0.15, "evaluation": 0.25}


def employment(folder: Path) -> Info:
    import keras

    files = package("nannyml", "0.13.1") / "nannyml" / "datasets" / "data"
    python = environment("data", ("pyarrow==22.0.0", "numpy>=2,<3"))
    run_in(python, "employment_table.py", files, folder / "table.npz", *CODES)
    with np.load(folder / "table.npz") as table:
        x, employed, year = table["x"], table["employed"], table["year"]
    (folder / "table.npz").unlink()
    rng = np.random.default_rng(5)
    splits, parts = {}, {}
    for split, of in YEARS.items():
        chosen = np.sort(rng.choice(np.flatnonzero(year == of), ROWS[split], replace=False))
        parts[split] = (x[chosen], employed[chosen])
        splits |= save_split(folder, split, f"people asked in {of}", {"features": x[chosen]}, label=employed[chosen])
    model = _network(parts["training"][0], outputs=2, name="employment")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _fit(model, *parts["training"], loss=loss, epochs=12)
    model.save(folder / "model.keras")
    test, truth = parts["evaluation"]
    accuracy = float((model.predict(test, verbose=0).argmax(axis=1) == truth).mean())
    return Info(
        name="employment",
        builder=VERSION,
        task="classification",
        files=("model.keras",),
        packages=("nannyml 0.13.1 (employment_MA_*.pq)",),
        licenses=("Apache-2.0",),
        parameters=model.count_params(),
        convolutional=False,
        synthetic=False,
        notes=(
            f"Input `features`: {', '.join(CODES)} as the census codes them; label: employed.",
            "Different people may have given the same answers: some rows are equal in two splits.",
        ),
        source_score=accuracy,
        splits=splits,
    )


def regression(folder: Path) -> Info:
    import keras

    columns = _houses()
    x = np.stack([columns[name] for name in HOUSES], axis=1).astype(np.float32)
    y = columns[INCOME].astype(np.float32)
    cells = np.floor(np.stack([columns["Latitude"], columns["Longitude"]], axis=1) / CELL).astype(int)
    names, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    order = np.random.default_rng(5).permutation(len(names))
    # Cells differ in size: a cell goes where the rows before it, in this order, have got to.
    reached = np.cumsum(np.bincount(cell)[order]) / len(x)
    borders = np.cumsum(list(SHARES.values()))[:-1]
    place = np.empty(len(names), int)
    place[order] = np.searchsorted(borders, reached - 1e-9)
    splits, parts = {}, {}
    for number, split in enumerate(SHARES):
        chosen = np.flatnonzero(place[cell] == number)
        parts[split] = (x[chosen], y[chosen])
        splits |= save_split(
            folder, split, f"block groups of {len(np.unique(cell[chosen]))} cells of half a degree",
            {"features": x[chosen]}, target=y[chosen, np.newaxis], group=cell[chosen],
        )  # fmt: skip
    model = _network(parts["training"][0], outputs=1, name="income")
    _fit(model, *parts["training"], loss=keras.losses.Huber(), epochs=30)
    model.save(folder / "model.keras")
    test, truth = parts["evaluation"]
    error = ((model.predict(test, verbose=0)[:, 0] - truth) ** 2).mean()
    return Info(
        name="regression",
        builder=VERSION,
        task="regression",
        files=("model.keras",),
        packages=("nannyml 0.13.1 (california_housing_*.csv)",),
        licenses=("Apache-2.0",),
        parameters=model.count_params(),
        convolutional=False,
        synthetic=False,
        notes=(f"Input `features`: {', '.join(HOUSES)} as they are; target: {INCOME}, in 10,000 dollars. Score: R².",),
        source_score=float(1 - error / truth.var()),
        splits=splits,
    )


def _houses() -> dict[str, np.ndarray]:
    folder = package("nannyml", "0.13.1") / "nannyml" / "datasets" / "data"
    rows = []
    for part in ("reference", "analysis"):
        with (folder / f"california_housing_{part}.csv").open(newline="") as file:
            rows += list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in (*HOUSES, INCOME)}


def _network(x: np.ndarray, *, outputs: int, name: str) -> keras.Model:
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    features = keras.Input((x.shape[1],), name="features")
    normalize = layers.Normalization(name="normalize")
    normalize.adapt(x)
    h = normalize(features)
    for units in (64, 64, 32):
        h = layers.Dense(units, activation="relu")(h)
    last = layers.Dense(outputs, name="logits" if outputs > 1 else "value")(h)
    return keras.Model(features, last, name=name)


def _fit(model: keras.Model, x: np.ndarray, y: np.ndarray, *, loss: keras.Loss, epochs: int) -> None:
    import keras

    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-len(x) // 256))
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(x, y, batch_size=256, epochs=epochs, verbose=0)
