"""Accuracy and latency, measured here and said to be."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.task import decisions

__all__ = ["accuracy", "interleaved_latency", "machine"]

WARM_UP, WARM_UP_S = 20, 0.4
BURST, LEAST_BURST = 20, 3  # calls in a row of one model before the next one's turn
ROUNDS, LEAST_ROUNDS = 30, 4
BUDGET_S = 3.0  # for all models together; big models get fewer rounds


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest output is at the label."""
    return float((decisions(outputs) == labels).mean())


def interleaved_latency(
    calls: Mapping[str, Callable[[], Any]], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, tuple[float, float]]:
    """(median microseconds, A/A ratio) of each call.

    The calls take turns, so that a busy moment of the machine hits all of them. Each one has two turns a round, counted
    apart: the ratio of their medians, larger over smaller, is what noise alone makes of a difference.
    """
    first: dict[str, list[float]] = {name: [] for name in calls}
    second: dict[str, list[float]] = {name: [] for name in calls}
    bursts = {name: _warmed_up(call, clock) for name, call in calls.items()}
    started = clock()
    for done in range(ROUNDS):
        if done >= LEAST_ROUNDS and clock() - started > BUDGET_S:
            break
        for samples in (first, second) if done % 2 else (second, first):
            for name, call in calls.items():
                for _ in range(bursts[name]):
                    before = clock()
                    call()
                    samples[name].append(clock() - before)
    result = {}
    for name in calls:
        a, b = float(np.median(first[name])), float(np.median(second[name]))
        result[name] = (float(np.median(first[name] + second[name])) * 1e6, max(a, b) / max(min(a, b), 1e-12))
    return result


def _warmed_up(call: Callable[[], Any], clock: Callable[[], float]) -> int:
    """Calls in a row of this model: as many as fit a short while, at most 20. Runs the model to find out."""
    started = clock()
    done = 0
    while done < WARM_UP and (done < LEAST_BURST or clock() - started < WARM_UP_S):
        call()
        done += 1
    each = (clock() - started) / done
    return max(LEAST_BURST, min(BURST, int(WARM_UP_S / 4 / max(each, 1e-9))))


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
