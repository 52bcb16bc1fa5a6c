"""Run by an environment that has pymicro-features: SPEECH.npy (float32, 16 kHz) to FEATURES.npy (frames, 40)."""

from __future__ import annotations

import sys

import numpy as np
from pymicro_features import MicroFrontend

CHUNK = 160  # samples: 10 ms


def main(speech: str, features: str) -> None:
    samples = (np.load(speech) * 32767).astype("<i2")
    frontend, frames, at = MicroFrontend(), [], 0
    while at + CHUNK <= len(samples):
        made = frontend.process_samples(samples[at : at + CHUNK].tobytes())
        at += made.samples_read
        if made.features:
            frames.append(made.features)
    np.save(features, np.array(frames, dtype=np.float32))


main(*sys.argv[1:])
