"""silero-vad: speech detection on 32 ms frames with a recurrent state, as ONNX files; frames and states of real speech.

A row is one call: the frame, the state that the model itself had then, and the sampling rate. The states come from
running the float model over each recording in order.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from bench.real_models.audio import SPEECH_RATE, speech
from bench.real_models.folder import Info, save_split
from bench.real_models.packages import package

VERSION = 1
FRAME, CONTEXT = 512, 64  # samples of a frame, and of the one before it that the model is given again
FILES = {
    "model.onnx": "silero_vad.onnx",
    "op15-16k.onnx": "silero_vad_16k_op15.onnx",
    "op18-ifless.onnx": "silero_vad_op18_ifless.onnx",
    "half.onnx": "silero_vad_half.onnx",
    "openvino-16k.onnx": "silero_vad_openvino_16k.onnx",
}
BOOK = "librivox/sense_and_sensibility_01_austen_64kb-"
RECORDINGS = {
    "calibration": ("cards/001.wav", "cards/003.wav", "cards/005.wav", f"{BOOK}0870.wav", "goforward.raw"),
    "evaluation": ("forever/input_4_16k.wav", "numbers.raw", "something.raw", "forever/input_2_16k.wav"),
}


def build(folder: Path) -> Info:
    data = package("silero-vad", "6.2.3") / "silero_vad" / "data"
    for to, name in FILES.items():
        shutil.copyfile(data / name, folder / to)
    splits = {}
    for split, names in RECORDINGS.items():
        rng = np.random.default_rng(len(names))
        parts = [_calls(folder / "model.onnx", _with_pauses(speech(name), rng)) for name in names]
        rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        group = np.repeat(names, [len(part["input"]) for part in parts])
        what = f"every frame of {len(names)} recordings of pocketsphinx: {', '.join(names)}"
        splits |= save_split(folder, split, f"{what}; one call a row: input (1, 576), state (2, 1, 128), sr ()", rows,
                             group=group)  # fmt: skip
        without_rate = {key: rows[key] for key in ("input", "state")}
        splits |= save_split(folder, f"{split}-no-sr", "the same rows for the files that take no sr", without_rate,
                             group=group)  # fmt: skip
    return Info(
        name="silero-vad",
        builder=VERSION,
        task="streaming",
        files=tuple(FILES),
        packages=("silero-vad 6.2.3", "pocketsphinx 5.1.1 (source archive)"),
        licenses=("MIT", "BSD-2-Clause and MIT"),
        parameters=None,
        convolutional=True,
        synthetic=False,
        notes=(
            "`model.onnx` (opset 16) has `If` nodes over the sampling rate; `op18-ifless.onnx` has none.",
            "Pauses of noise at −60 to −35 dB are put around each recording, so that there is non-speech too.",
        ),
        splits=splits,
    )


def _with_pauses(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pauses = [rng.standard_normal(SPEECH_RATE // 2) * 10 ** rng.uniform(-3, -1.75) for _ in range(2)]
    return np.concatenate([pauses[0], samples, pauses[1]]).astype(np.float32)


def _calls(model: Path, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Every call of a run over the samples: ``input`` (n, 1, 576), ``state`` (n, 2, 1, 128), ``sr`` (n,)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of unused initializers
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)
    rate, frames, states = np.array(SPEECH_RATE, np.int64), [], []
    for start in range(0, len(samples) - FRAME + 1, FRAME):
        frame = np.concatenate([context, samples[start : start + FRAME]])[np.newaxis]
        frames.append(frame)
        states.append(state)
        _, state = session.run(["output", "stateN"], {"input": frame, "state": state, "sr": rate})
        context = frame[0, -CONTEXT:]
    return {"input": np.stack(frames), "state": np.stack(states), "sr": np.full(len(frames), rate)}
