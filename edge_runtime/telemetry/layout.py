"""Which histograms a report holds, how many cells each has, and in what order. Pure; no NumPy, the server uses it too.

The order is fixed: one histogram of 19 cells a feature (``feature:<name>``), ``classes`` 32, ``confidence`` 20,
``latency_device`` 160, ``latency_cloud`` 160, ``reasons`` 16, ``refused`` 16.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass

from edge_runtime.bundle.limits import CONFIDENCE_BINS, FEATURE_CELLS, MAX_CLASS_CELLS
from edge_runtime.bundle.manifest import Artifact, Feature

__all__ = [
    "CLASSES",
    "CONFIDENCE",
    "FIXED_HISTOGRAMS",
    "LATENCY_BINS",
    "LATENCY_CELLS",
    "LATENCY_CLOUD",
    "LATENCY_DEVICE",
    "REASONS",
    "REFUSED",
    "REFUSED_KINDS",
    "Layout",
    "latency_bin",
    "latency_cell",
]

CLASSES = "classes"
CONFIDENCE = "confidence"
LATENCY_DEVICE = "latency_device"
LATENCY_CLOUD = "latency_cloud"
REASONS = "reasons"
REFUSED = "refused"

BINS_PER_OCTAVE = 16
LATENCY_BINS = 16 * 24  # of outcome reports: 1 µs to 2**24 µs
LATENCY_CELLS = 16 * 10  # of telemetry: 10 octaves, from where the source's latencies start
_FIRST_BIN = {LATENCY_DEVICE: 16 * 4, LATENCY_CLOUD: 16 * 10}  # 16 µs to 16 ms; 1 ms to 1 s

FIXED_HISTOGRAMS: tuple[tuple[str, int], ...] = (
    (CLASSES, MAX_CLASS_CELLS),
    (CONFIDENCE, CONFIDENCE_BINS),
    (LATENCY_DEVICE, LATENCY_CELLS),
    (LATENCY_CLOUD, LATENCY_CELLS),
    (REASONS, 16),
    (REFUSED, 16),
)

# Cells of ``refused``, by the class of the error that the caller got. Never reorder: add at the end.
REFUSED_KINDS = ("WrongInputs", "WrongShape", "WrongDtype", "NonFiniteInput", "InputOutOfRange")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The histograms of one artifact. ``kind`` is ``<target>/<precision>``; ``classes`` is the number of labels."""

    kind: str
    features: tuple[Feature, ...]
    histograms: tuple[tuple[str, int], ...]
    digest: bytes  # 8 bytes (docs/spec/telemetry.md); two artifacts have the same one when their reports mean the same

    @classmethod
    def of(cls, artifact: Artifact) -> Layout:
        """The layout that ``artifact``'s telemetry reference asks for; without a reference, no features."""
        features = artifact.reference.features if artifact.reference is not None else ()
        histograms = (*((f"feature:{feature.name}", FEATURE_CELLS) for feature in features), *FIXED_HISTOGRAMS)
        digest = hashlib.sha256()
        for f in features:
            digest.update(f"{f.name}\0{f.input}\0{f.reduce}\0".encode())
            # Bits, not text, since every language prints floats its own way; + 0.0 makes one zero of two.
            digest.update(struct.pack(f">I{len(f.edges)}d", f.index, *(edge + 0.0 for edge in f.edges)))
        for name, cells in histograms:
            digest.update(name.encode() + b"\0" + struct.pack(">H", cells))
        return cls(
            kind=f"{artifact.target}/{artifact.precision}",
            features=features,
            histograms=histograms,
            digest=digest.digest()[:8],
        )

    @property
    def cells(self) -> int:
        """All cells together."""
        return sum(cells for _, cells in self.histograms)


def latency_bin(microseconds: float) -> int:
    """The logarithmic bin of a latency, 16 an octave: ``floor(16 log2 µs)``, clipped to 0 … 383."""
    if microseconds <= 1.0:
        return 0
    return min(int(BINS_PER_OCTAVE * math.log2(microseconds)), LATENCY_BINS - 1)


def latency_cell(source: str, latency: int) -> int:
    """The telemetry cell of a latency bin in histogram ``source``; the end cells hold what lies outside.

    ``latency_device`` covers 2**4 to 2**14 µs, ``latency_cloud`` 2**10 to 2**20 µs.
    """
    return min(max(latency - _FIRST_BIN[source], 0), LATENCY_CELLS - 1)
