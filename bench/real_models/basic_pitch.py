"""basic-pitch (Spotify): music transcription, one convolutional network as SavedModel, ONNX, TFLite and Core ML."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from bench.real_models.audio import computed_music, singer
from bench.real_models.folder import Info, save_split
from bench.real_models.packages import package

VERSION = 1
RATE = 22_050
WINDOW = 43_844  # samples: 2 seconds less one hop of its own
RECORDED = {"calibration": (10, 40), "evaluation": (14, 48)}  # singer and number of windows
COMPUTED = {"calibration": (1, 20), "evaluation": (2, 24)}  # seed and number of windows
FILES = {
    "model": "nmp",
    "package.onnx": "nmp.onnx",
    "package.tflite": "nmp.tflite",
    "package.mlpackage": "nmp.mlpackage",
}
# The package's ONNX file names its tensors after TensorFlow's, its SavedModel's signature says input_2.
NAMES = {"": "input_2", "-onnx": "serving_default_input_2:0"}


def build(folder: Path) -> Info:
    saved = package("basic-pitch", "0.4.0") / "basic_pitch" / "saved_models" / "icassp_2022"
    for to, name in FILES.items():
        copy = shutil.copytree if (saved / name).is_dir() else shutil.copyfile
        copy(saved / name, folder / to)
    splits = {}
    for split in RECORDED:
        x, group = _windows(split)
        what = (
            f"{RECORDED[split][1]} windows of one singer (vocadito {RECORDED[split][0]}) and {COMPUTED[split][1]} of "
            "computed polyphony"
        )
        for suffix, name in NAMES.items():
            splits |= save_split(folder, split + suffix, what, {name: x}, group=group)
    return Info(
        name="basic-pitch",
        builder=VERSION,
        task="detection",
        files=tuple(FILES),
        packages=("basic-pitch 0.4.0 (wheel and source archive)",),
        licenses=("Apache-2.0; vocadito recordings CC-BY 4.0",),
        parameters=None,
        convolutional=True,
        synthetic=True,
        notes=(
            "`model` is the SavedModel; the other files are the package's own conversions, for comparison.",
            "`calibration-onnx.npz` and `evaluation-onnx.npz` are the same rows under the ONNX file's input name.",
            "Each split has another singer; the computed windows have other seeds.",
        ),
        splits=splits,
    )


def _windows(split: str) -> tuple[np.ndarray, np.ndarray]:
    """(rows, 43844, 1) float32 and the origin of each row."""
    number, rows = RECORDED[split]
    song = singer(number, RATE)
    starts = np.linspace(0, len(song) - WINDOW, rows).astype(int)
    recorded = [song[start : start + WINDOW] for start in starts]
    seed, rows = COMPUTED[split]
    rng = np.random.default_rng(seed)
    computed = [computed_music(rng, WINDOW, RATE) for _ in range(rows)]
    x = np.stack([*recorded, *computed])[..., np.newaxis].astype(np.float32)
    group = np.array([f"vocadito {number}"] * len(recorded) + ["computed"] * len(computed))
    order = np.random.default_rng(seed).permutation(len(x))
    return x[order], group[order]
