"""pymicro-wakeword: a streaming wake-word detector, finished as a fully quantized TFLite file with variables.

A row is one call, in the order of the recording; the model keeps its state between calls. Features are of real speech,
computed by pymicro-features in an environment of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from bench.real_models.audio import speech
from bench.real_models.folder import Info, save_split
from bench.real_models.packages import environment, package, run_in

VERSION = 1
STEPS, SCALE, ZERO = 3, 0.10196078568696976, -128  # feature frames of one call, and the file's input quantization
RECORDINGS = {
    "calibration": ("cards/004.wav", "cards/005.wav", "goforward.raw"),
    "evaluation": ("forever/input_4_16k.wav", "numbers.raw", "something.raw"),
}


def build(folder: Path) -> Info:
    shutil.copyfile(
        package("pymicro-wakeword", "2.5.0") / "pymicro_wakeword/models/okay_nabu.tflite", folder / "model.tflite"
    )
    python = environment("speech-features", ("pymicro-features==2.0.2", "numpy>=2,<3"))
    splits = {}
    for split, names in RECORDINGS.items():
        np.save(folder / "speech.npy", np.concatenate([speech(name) for name in names]))
        run_in(python, "speech_features.py", folder / "speech.npy", folder / "features.npy")
        frames = np.load(folder / "features.npy")
        calls = frames[: len(frames) // STEPS * STEPS].reshape(-1, 1, STEPS, frames.shape[1])
        quantized = np.clip(np.round(calls / SCALE) + ZERO, -128, 127).astype(np.int8)
        what = f"every call over {len(names)} recordings of pocketsphinx, in order: {', '.join(names)}"
        splits |= save_split(folder, split, what, {"input_audio": quantized})
    for scratch in ("speech.npy", "features.npy"):
        (folder / scratch).unlink()
    return Info(
        name="wakeword",
        builder=VERSION,
        task="streaming",
        files=("model.tflite",),
        packages=("pymicro-wakeword 2.5.0", "pymicro-features 2.0.2", "pocketsphinx 5.1.1 (source archive)"),
        licenses=("Apache-2.0", "Apache-2.0", "BSD-2-Clause and MIT"),
        parameters=None,
        convolutional=True,
        synthetic=False,
        notes=(
            "`okay_nabu.tflite`: full INT8 with variables, int8 in, uint8 out; to be passed through, not converted.",
        ),
        splits=splits,
    )
