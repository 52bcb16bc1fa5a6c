"""Make the tiny model files of this folder: `python tests/data/make_tiny_models.py` (needs tensorflow, 10 s).

Every model maps float32 window[batch, 20, 3] to float32 logits[batch, 4] by one matrix product of the flattened
window, so that a test can compute the right answer with NumPy. The ONNX ones are made by the tests themselves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def tiny_weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """weights float32[60, 4], bias float32[4]."""
    random = np.random.default_rng(seed)
    return random.normal(0, 0.2, (60, 4)).astype(np.float32), random.normal(0, 0.2, 4).astype(np.float32)


def main() -> None:
    import tensorflow as tf

    weights, bias = (tf.constant(array) for array in tiny_weights())

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 20, 3), tf.float32, name="window")])
        def dynamic(self, window: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"logits": tf.matmul(tf.reshape(window, (-1, 60)), weights) + bias}

        @tf.function(input_signature=[tf.TensorSpec((1, 20, 3), tf.float32, name="window")])
        def fixed(self, window: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"logits": tf.matmul(tf.reshape(window, (1, 60)), weights) + bias}

    tiny = Tiny()
    for name in ("dynamic", "fixed"):
        function = getattr(tiny, name).get_concrete_function()
        data = tf.lite.TFLiteConverter.from_concrete_functions([function], tiny).convert()
        (HERE / f"tiny-{name}.tflite").write_bytes(data)


if __name__ == "__main__":
    main()
