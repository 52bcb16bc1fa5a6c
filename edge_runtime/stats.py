"""Counters of one release in one arm of a rollout, cheap enough for every prediction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.prediction import REASON_CELLS, Reason, Source
from edge_runtime.telemetry.layout import BINS_PER_OCTAVE, LATENCY_BINS

__all__ = ["Counters", "Totals", "percentile_us"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts since the runtime was opened. ``requests`` are calls of `predict`, answered, refused or in vain;
    ``errors`` failures of the local engine, outputs that are not finite included; ``fallbacks`` answers by somebody
    else because of one; ``refused`` inputs that were refused; ``accepted_out_of_range`` those let through by policy;
    ``unanswered`` calls that ended with `NoAnswer`. Latencies are bins of `telemetry.layout.latency_bin`."""

    requests: int
    errors: int
    fallbacks: int
    refused: int
    accepted_out_of_range: int
    unanswered: int
    sources: dict[str, int]
    reasons: dict[str, int]
    latency_device: tuple[int, ...]
    latency_cloud: tuple[int, ...]


class Counters:
    """Thread-safe. Everything about one prediction is added under one lock, at its end."""

    __slots__ = (
        "_accepted",
        "_cloud",
        "_device",
        "_errors",
        "_fallbacks",
        "_lock",
        "_reasons",
        "_refused",
        "_requests",
        "_sources",
        "_unanswered",
        "good",
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._errors = self._fallbacks = self._refused = self._accepted = self._unanswered = 0
        self._sources = dict.fromkeys(Source, 0)
        self._reasons = [0] * len(Reason)
        self._device = [0] * LATENCY_BINS
        self._cloud = [0] * LATENCY_BINS
        self.good = 0  # finite answers of the local model

    def answered(self, source: Source, reason: int, device_bin: int | None, cloud_bin: int | None, failed: bool) -> int:
        """One answer. ``device_bin`` is set when the local model answered well, ``cloud_bin`` when the cloud was asked
        with success, ``failed`` when the local model was run and failed. Returns how many good local runs there were,
        this one included, or 0 if this was none."""
        with self._lock:
            self._requests += 1
            self._sources[source] += 1
            self._reasons[reason] += 1
            if cloud_bin is not None:
                self._cloud[cloud_bin] += 1
            if failed:
                self._errors += 1
                self._fallbacks += 1
            if device_bin is None:
                return 0
            self._device[device_bin] += 1
            self.good += 1
            return self.good

    def refuse(self) -> None:
        """One call whose input was refused."""
        with self._lock:
            self._requests += 1
            self._refused += 1

    def accept_out_of_range(self) -> None:
        """One input outside what training saw that the policy lets through."""
        with self._lock:
            self._accepted += 1

    def fail(self, *, failed: bool) -> None:
        """One call that nobody could answer."""
        with self._lock:
            self._requests += 1
            self._unanswered += 1
            self._errors += failed

    def totals(self) -> Totals:
        with self._lock:
            return Totals(
                requests=self._requests,
                errors=self._errors,
                fallbacks=self._fallbacks,
                refused=self._refused,
                accepted_out_of_range=self._accepted,
                unanswered=self._unanswered,
                sources={source.value: count for source, count in self._sources.items()},
                reasons={reason.value: self._reasons[cell] for reason, cell in REASON_CELLS.items()},
                latency_device=tuple(self._device),
                latency_cloud=tuple(self._cloud),
            )


def percentile_us(bins: Sequence[int], share: float) -> float | None:
    """The latency in microseconds below which ``share`` (0 to 1) of the counts lie: the upper edge of its bin, so at
    most 4.4 % too high. None without counts."""
    total = sum(bins)
    seen = 0
    for at, count in enumerate(bins):
        seen += count
        if total and seen >= share * total and seen:
            return float(2.0 ** ((at + 1) / BINS_PER_OCTAVE))
    return None
