"""The two networks of the story: a teacher that answers in the cloud, and a small student that runs on the watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.smartwatch.data import AXES, EXERCISES, WINDOW

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray


def _input(x: NDArray[np.float32]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The raw window, and the same normalised by the training set's mean and variance, inside the graph."""
    import keras

    window = keras.Input((WINDOW, len(AXES)), name="window")
    normalise = keras.layers.Normalization(name="normalise")
    normalise.adapt(x)
    return window, normalise(window)


def teacher(x: NDArray[np.float32]) -> keras.Model:
    """A plain 1-D convolutional network, about 350 k parameters; ``x`` (float32 [n, 100, 6]) sets its normalisation."""
    import keras
    from keras import layers

    window, h = _input(x)
    for filters, kernel in ((64, 7), (128, 5), (256, 5)):
        h = layers.Conv1D(filters, kernel, padding="same", use_bias=False)(h)
        h = layers.BatchNormalization()(h)
        h = layers.ReLU()(h)
        h = layers.MaxPooling1D(2)(h)
    h = layers.SpatialDropout1D(0.2)(h)
    h = layers.Conv1D(160, 3, padding="same", use_bias=False)(h)
    h = layers.BatchNormalization()(h)
    h = layers.ReLU()(h)
    h = layers.GlobalAveragePooling1D()(h)
    h = layers.Dropout(0.4)(h)
    logits = layers.Dense(len(EXERCISES), name="logits")(h)
    return keras.Model(window, logits, name="exercise_teacher")


def student(x: NDArray[np.float32]) -> keras.Model:
    """A network for the watch, about 20 k parameters, of operators that every engine holds in INT8."""
    import keras
    from keras import layers

    window, h = _input(x)
    for filters, kernel, stride in ((32, 7, 2), (48, 5, 2), (64, 3, 1)):
        h = layers.Conv1D(filters, kernel, strides=stride, padding="same", use_bias=False)(h)
        h = layers.BatchNormalization()(h)
        h = layers.ReLU()(h)
    h = layers.GlobalAveragePooling1D()(h)
    h = layers.Dropout(0.2)(h)
    logits = layers.Dense(len(EXERCISES), name="logits")(h)
    return keras.Model(window, logits, name="exercise_student")


def with_context(single: keras.Model) -> keras.Model:
    """The cloud model: the teacher over the last windows of a recording (float32 [n, 100, 6], n from 1 to 8), its
    probabilities averaged. Output: log-probabilities, float32 [1, 7]."""
    import keras
    from keras import ops

    context = keras.Input((WINDOW, len(AXES)), name="context")
    probabilities = ops.softmax(single(context), axis=-1)
    mean = ops.mean(probabilities, axis=0, keepdims=True)
    return keras.Model(context, keras.layers.Identity(name="logits")(ops.log(mean + 1e-9)), name="exercise_cloud")


def with_signal_gain(student: keras.Model) -> keras.Model:
    """Release 3's fault: logits scaled by how lively the signal is, without a floor under the logarithm.

    The idea sounds right (a livelier window deserves more confidence), every class keeps its rank, and on every
    recorded window the scale is finite, so every offline check passes. A sensor that drops out leaves a window of
    zeros: its standard deviation is 0, the logarithm minus infinity, and the logits are not finite.

    It sits behind the last quantized layer on purpose. Before one, INT8 turns NaN into a finite, confident, wrong
    answer, which no error counter sees.
    """
    import keras
    from keras import ops

    window = keras.Input((WINDOW, len(AXES)), name="window")
    liveliness = ops.log(ops.mean(ops.std(window, axis=1), axis=-1, keepdims=True))  # [batch, 1]
    scale = 1.0 + 0.05 * (liveliness + 4.0)
    logits = keras.layers.Identity(name="logits")(student(window) * scale)
    return keras.Model(window, logits, name="exercise_student_gain")
