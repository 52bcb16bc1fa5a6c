"""Counts of one release on one device: the histograms of `Layout`, filled a batch at a time.

Counting one example at a time would cost more than a small model does. So `observe` keeps a copy of the inputs that
features are computed from, and works off some hundreds of them at once; nothing else ever sees those copies.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge_runtime.bundle.limits import CONFIDENCE_BINS, MAX_CLASS_CELLS
from edge_runtime.telemetry.layout import CLASSES, CONFIDENCE, LATENCY_CLOUD, LATENCY_DEVICE, REASONS, Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Histograms"]

PENDING_EXAMPLES = 256
PENDING_BYTES = 1 << 20


class Histograms:
    """Integer counts by histogram name. Safe to use from several threads."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {name: [0] * cells for name, cells in layout.histograms}
        self._inputs = tuple(dict.fromkeys(feature.input for feature in layout.features))
        self._pending: deque[list[NDArray[Any]]] = deque()
        self._pending_bytes = 0

    def observe(
        self,
        inputs: Mapping[str, NDArray[Any]],
        index: int | None,
        confidence: float | None,
        reason: int,
        device: int | None = None,
        cloud: int | None = None,
    ) -> None:
        """Count one answered example. ``inputs`` have a first axis of length 1; without the inputs that features need,
        the features are not counted. ``index`` is the class, ``confidence`` 0 to 1; ``reason``, ``device`` and
        ``cloud`` are cells of ``reasons`` and of the two latencies."""
        counts = self._counts
        with self._lock:
            counts[REASONS][reason] += 1
            if index is not None:
                counts[CLASSES][index if index < MAX_CLASS_CELLS else MAX_CLASS_CELLS - 1] += 1
            if confidence is not None:
                counts[CONFIDENCE][min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += 1
            if device is not None:
                counts[LATENCY_DEVICE][device] += 1
            if cloud is not None:
                counts[LATENCY_CLOUD][cloud] += 1
        if self._inputs:
            self._keep(inputs)

    def count(self, histogram: str, cell: int, times: int = 1) -> None:
        """Add to one cell."""
        with self._lock:
            self._counts[histogram][cell] += times

    def observe_many(
        self,
        features: NDArray[np.float64],
        classes: NDArray[np.integer[Any]] | None = None,
        confidences: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Count n examples at once: ``features`` float64[n, number of features] as `feature_values` gives them,
        ``classes`` int[n], ``confidences`` float[n] in 0 … 1."""
        import numpy as np

        added: dict[str, NDArray[Any]] = self._feature_counts(features)
        if classes is not None:
            added[CLASSES] = np.bincount(np.minimum(classes, MAX_CLASS_CELLS - 1), minlength=MAX_CLASS_CELLS)
        if confidences is not None:
            bins = np.clip((np.asarray(confidences) * CONFIDENCE_BINS).astype(np.intp), 0, CONFIDENCE_BINS - 1)
            added[CONFIDENCE] = np.bincount(bins, minlength=CONFIDENCE_BINS)
        self._add(added)

    def counts(self) -> dict[str, tuple[int, ...]]:
        """All counts so far, in the layout's order."""
        self._work_off()
        with self._lock:
            return {name: tuple(counts) for name, counts in self._counts.items()}

    def add_counts(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Add counts that were taken earlier under the same layout."""
        self._add(counts)

    def _add(self, counts: Mapping[str, Iterable[Any]]) -> None:
        with self._lock:
            for name, values in counts.items():
                self._counts[name] = [a + int(b) for a, b in zip(self._counts[name], values, strict=True)]

    def _keep(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        # Appending to and popping from a deque are atomic, so a full buffer never makes another thread wait.
        try:
            copies = [inputs[name].copy() for name in self._inputs]
        except KeyError:
            return  # the cloud answered without them
        self._pending.append(copies)
        for copy in copies:
            self._pending_bytes += copy.nbytes
        if len(self._pending) >= PENDING_EXAMPLES or self._pending_bytes >= PENDING_BYTES:
            self._work_off()

    def _work_off(self) -> None:
        import numpy as np

        from edge_runtime.telemetry.features import feature_values

        taken: list[list[NDArray[Any]]] = []
        self._pending_bytes = 0
        while self._pending:
            try:
                taken.append(self._pending.popleft())
            except IndexError:  # another thread took the last one
                break
        groups: dict[tuple[tuple[int, ...], ...], list[list[NDArray[Any]]]] = {}
        for example in taken:  # axes of any size make examples that cannot be stacked
            groups.setdefault(tuple(array.shape for array in example), []).append(example)
        for group in groups.values():
            stacked = {
                name: np.concatenate(arrays)
                for name, arrays in zip(self._inputs, zip(*group, strict=True), strict=True)
            }
            self._add(self._feature_counts(feature_values(self.layout.features, stacked)))

    def _feature_counts(self, values: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        import numpy as np

        from edge_runtime.bundle.limits import FEATURE_CELLS
        from edge_runtime.telemetry.features import feature_cells

        return {
            f"feature:{feature.name}": np.bincount(
                feature_cells(feature.edges, values[:, column]), minlength=FEATURE_CELLS
            )
            for column, feature in enumerate(self.layout.features)
        }
