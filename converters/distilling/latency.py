"""How long a student takes: measured here on LiteRT, or estimated for a device and called so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from converters.distilling.macs import count_macs
from converters.errors import InvalidRequest
from converters.evaluate import machine
from converters.quiet import load_tool, quiet
from devices.profiles import Profile, estimated_latency

__all__ = ["Latency", "estimated", "measured_here"]

WARM_UP, CALLS = 20, 200
PRECISION = "int8"  # what a student for a device is shipped in, and what published latencies are for


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds a row, one at a time. ``how`` is never left out: ``estimated`` is not measured, and ``measured``
    was on this machine, not on a device."""

    ms: float
    how: Literal["measured", "estimated"]
    method: str


def measured_here(model: Any, *, clock: Callable[[], float] = time.perf_counter) -> Latency:
    """The median of single calls of the model in LiteRT on this machine, fp32, one thread. Latency does not depend on
    the weights, so an untrained model will do."""
    tf = load_tool("tensorflow")
    with quiet("measuring the student"):
        data = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        interpreter = load_tool("ai_edge_litert.interpreter").Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        for _ in range(WARM_UP):
            interpreter.invoke()
        samples = []
        for _ in range(CALLS):
            before = clock()
            interpreter.invoke()
            samples.append(clock() - before)
    ms = statistics.median(samples) * 1e3
    return Latency(ms=ms, how="measured", method=f"LiteRT, fp32, 1 thread, median of {CALLS} calls, on {machine()}")


def estimated(model: Any, profile: Profile) -> Latency:
    """By multiply-adds and a latency that somebody published for the device (`devices.profiles.estimated_latency`).

    Raises `InvalidRequest` for a device without one, `UnsupportedModel` for a layer that cannot be counted.
    """
    estimate = estimated_latency(profile, count_macs(model), PRECISION)
    if estimate is None:
        raise InvalidRequest(
            f"nobody published a latency for {profile.title} that an estimate could start from; give --max-parameters, "
            "or --max-latency-ms without --profile to measure on this machine"
        )
    return Latency(ms=estimate.latency_ms, how="estimated", method=estimate.method)
