"""Sound for the audio models: recordings inside source archives, and computed music where one voice is not enough.

pocketsphinx 5.1.1 carries its test recordings (speech, 16 kHz), basic-pitch 0.4.0 two singers of the vocadito data set
(CC-BY 4.0, 44.1 kHz).
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from bench.real_models.packages import package

__all__ = ["SPEECH_RATE", "computed_music", "singer", "speech"]

SPEECH_RATE = 16_000
Samples = NDArray[np.float32]  # mono, between −1 and 1


def speech(name: str) -> Samples:
    """A recording of pocketsphinx's ``test/data``, 16 kHz."""
    path = package("pocketsphinx", "5.1.1", source=True) / "test" / "data" / name
    if path.suffix == ".raw":
        return _scaled(np.frombuffer(path.read_bytes(), dtype="<i2"))
    samples, rate = _read_wave(path)
    if rate != SPEECH_RATE:
        raise ValueError(f"{path} is of {rate} Hz")
    return samples


def singer(number: int, rate: int) -> Samples:
    """vocadito's recording of that number (10 or 14), resampled."""
    path = package("basic-pitch", "0.4.0", source=True) / "tests" / "resources" / f"vocadito_{number}.wav"
    samples, recorded = _read_wave(path)
    common = int(np.gcd(rate, recorded))
    return resample_poly(samples, rate // common, recorded // common).astype(np.float32)


def computed_music(rng: np.random.Generator, samples: int, rate: int) -> Samples:
    """Overlapping plucked and held notes of 1 to 5 voices over a little noise."""
    time = np.arange(samples) / rate
    mix = rng.standard_normal(samples) * 10 ** rng.uniform(-4, -2.5)
    for _ in range(int(rng.integers(1, 6))):
        start = 0.0
        while start < samples / rate:
            length = rng.uniform(0.15, 1.0)
            mix += _note(time - start, length, 440 * 2 ** ((rng.integers(33, 89) - 69) / 12), rng)
            start += length * rng.uniform(0.7, 1.4)
    return (mix * rng.uniform(0.3, 0.9) / np.abs(mix).max()).astype(np.float32)


def _note(time: NDArray[np.float64], length: float, pitch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Harmonics that fall off, under an attack and a decay (plucked) or a plateau (held)."""
    inside = (time >= 0) & (time < length)
    t = time[inside]
    slope, decay = rng.uniform(0.8, 2.0), rng.choice([0.5, 4.0, 8.0])
    envelope = np.minimum(1, t / 0.01) * np.exp(-decay * t) * np.minimum(1, (length - t) / 0.03)
    vibrato = 1 + 0.004 * rng.random() * np.sin(2 * np.pi * 5.5 * t)
    sound = np.zeros_like(time)
    for harmonic in range(1, 9):
        sound[inside] += harmonic**-slope * np.sin(2 * np.pi * pitch * harmonic * t * vibrato + rng.uniform(0, 6.28))
    sound[inside] *= envelope * rng.uniform(0.3, 1.0)
    return sound


def _read_wave(path: Path) -> tuple[Samples, int]:
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path} is not of 16 bits")
        raw = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return _scaled(raw.reshape(-1, file.getnchannels())[:, 0]), file.getframerate()


def _scaled(samples: NDArray[np.int16]) -> Samples:
    return samples.astype(np.float32) / np.float32(32768)
