"""What `EdgeRuntime.predict` costs over the engine alone: ONNX Runtime, float32, 10 classes, 20 telemetry features.

`predict` and plain `session.run` of the same model take turns in blocks; the ratio of a pair of blocks is one sample,
and the median over pairs is the metric. `aa_*` is the same for plain against plain: what this machine's noise looks
like.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.models import SHAPE, network, open_runtime, plain_session

TARGETS_US = {"50us": 50.0, "1ms": 1_000.0, "10ms": 10_000.0}
BLOCK_US = 20_000.0  # a block of calls lasts about this long, or one call


def run(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, list[float]]]:
    pairs = 15 if quick else 101
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    samples: dict[str, list[float]] = {}
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    for name, target in TARGETS_US.items():
        model = _model_of_about(target, x)
        with tempfile.TemporaryDirectory() as folder:
            session = plain_session(model)
            with open_runtime(model, x, Path(folder)) as runtime:
                inputs, batch = {"x": x}, {"x": x[np.newaxis]}
                plain = partial(session.run, None, batch)
                ours = partial(runtime.predict, inputs)
                engine_us = _block(plain, 50) * 1e6
                calls = max(1, round(BLOCK_US / engine_us))
                for _ in range(3):
                    _block(plain, calls)
                    _block(ours, calls)
                ratios, noise, over = [], [], []
                for _ in range(pairs):
                    a, b, c = _block(plain, calls), _block(ours, calls), _block(plain, calls)
                    ratios.append(2 * b / (a + c))
                    noise.append(c / a)
                    over.append((b - (a + c) / 2) * 1e6)
        metrics[f"ratio_{name}"] = round(statistics.median(ratios), 4)
        metrics[f"aa_{name}"] = round(statistics.median(noise), 4)
        row = {"engine_us": round(engine_us, 1), "overhead_us": round(statistics.median(over), 1), "pairs": pairs}
        rows.append({"size": name, **row})
        samples |= {f"ratio_{name}": ratios, f"aa_{name}": noise, f"overhead_us_{name}": over}
        print(
            f"{name:>5}: engine {engine_us:9.1f} µs, predict adds {row['overhead_us']:6.1f} µs, "
            f"ratio {metrics[f'ratio_{name}']:.3f} (A/A {metrics[f'aa_{name}']:.3f})",
            flush=True,
        )
    return metrics, rows, samples


def _block(call: Callable[[], Any], calls: int) -> float:
    """Seconds a call, over a block of them."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def _model_of_about(target_us: float, x: NDArray[np.float32]) -> bytes:
    """A two-layer network whose plain run takes about ``target_us`` here."""
    hidden = 8
    while True:
        model = network(hidden)
        session = plain_session(model)
        batch = {"x": x[np.newaxis]}
        plain = partial(session.run, None, batch)
        _block(plain, 5)
        took = min(_block(plain, 10) for _ in range(3)) * 1e6
        if took >= target_us * 0.9 or hidden > 8192:
            return model
        hidden = max(hidden + 1, min(hidden * 4, round(hidden * target_us / took)))
