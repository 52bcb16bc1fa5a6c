"""Accuracy and latency of artifacts, measured here and said to be."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.parity import decisions

__all__ = ["accuracy", "interleaved_p50_us", "machine"]

WARM_UP = 20
BURST = 20  # calls in a row of one model before the next one's turn
ROUNDS = 30
BUDGET_S = 2.0  # for all models together; big models get fewer rounds


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest first output is at the label."""
    return float((decisions(outputs) == labels).mean())


def interleaved_p50_us(
    calls: Mapping[str, Callable[[], Any]], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median microseconds of each call. The calls take turns, so that a busy moment of the machine hits all of them."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    started = clock()
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    for done in range(ROUNDS):
        if done and clock() - started > BUDGET_S:
            break
        for name, call in calls.items():
            for _ in range(BURST):
                before = clock()
                call()
                samples[name].append(clock() - before)
    return {name: float(np.median(values)) * 1e6 for name, values in samples.items()}


def machine() -> str:
    """This machine, for the record beside a measurement: system, processor, number of CPUs."""
    return f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} CPUs"[:256]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or "unknown processor"
