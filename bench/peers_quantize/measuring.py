"""Answers and times of quantized files, ours and others', in the same engines; run in processes of their own.

`… answers JOB.json OUT.npz FILE` runs the evaluation rows through one file; `… times JOB.json OUT.json NAME=FILE…`
calls all of them in turns. A TFLite file whose own inputs or outputs are INT8 gets and gives floats here, by its own
scales; the time is of the bare call. A file whose tensors go by other names than ours (TFLiteConverter's may) is read
by position where it has one input and one output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.data import check_dataset, load_dataset
from converters.engines import Engine, open_engine, tensor_details
from edge_runtime.bundle import TensorSpec

__all__ = ["as_float", "as_stored", "interleaved", "specs", "to_own_names"]

ROUNDS, LEAST_ROUNDS, BUDGET_S = 60, 6, 6.0
BURST_S = 0.002  # a burst of calls lasts about this long, or one call


def specs(values: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """As a report states them."""
    return tuple(TensorSpec(name=each["name"], dtype=each["dtype"], shape=tuple(each["shape"])) for each in values)


def to_own_names(wanted: tuple[TensorSpec, ...], own: Sequence[str], what: str) -> dict[str, str]:
    """The file's name of each of our tensors: the same where it has them, else by position where there is one.

    Raises `ValueError`.
    """
    if {spec.name for spec in wanted} <= set(own):
        return {spec.name: spec.name for spec in wanted}
    if len(wanted) == len(own) == 1:
        return {wanted[0].name: own[0]}
    raise ValueError(f"{what} {', '.join(own)} cannot be told to be {', '.join(spec.name for spec in wanted)}")


class Opened:
    """A file in its engine under our names; ``job`` is `bench.quantize`'s."""

    def __init__(self, job: Mapping[str, Any], file: Path) -> None:
        inputs, outputs = specs(job["inputs"]), specs(job["outputs"])
        data = file.read_bytes()
        self._inputs = {spec.name: spec.name for spec in inputs}
        self._outputs = {spec.name: spec.name for spec in outputs}
        given: Mapping[str, Any] = {}
        made: Mapping[str, Any] = {}
        if job["target"] == "tflite":
            from ai_edge_litert.interpreter import Interpreter

            given, made = tensor_details(Interpreter(model_content=data))
            self._inputs = to_own_names(inputs, list(given), "inputs")
            self._outputs = to_own_names(outputs, list(made), "outputs")
        self.engine: Engine = open_engine(
            job["target"],
            data,
            tuple(replace(spec, name=self._inputs[spec.name]) for spec in inputs),
            tuple(replace(spec, name=self._outputs[spec.name]) for spec in outputs),
        )
        rows = check_dataset(load_dataset(job["evaluation"]), inputs)
        own = {self._inputs[name]: array for name, array in rows.inputs.items()}
        self.rows = {name: as_stored(array, given.get(name)) for name, array in own.items()}
        self._made = made

    def answers(self) -> dict[str, np.ndarray]:
        results = self.engine.run(self.rows)
        return {name: as_float(results[own], self._made.get(own)) for name, own in self._outputs.items()}


def as_stored(values: np.ndarray, detail: Mapping[str, Any] | None) -> np.ndarray:
    """Floats as an INT8 input takes them, by LiteRT's details of it; anything else as it is."""
    if detail is None or values.dtype.kind != "f" or np.dtype(detail["dtype"]).kind not in "iu":
        return values
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


def as_float(values: np.ndarray, detail: Mapping[str, Any] | None) -> np.ndarray:
    """What an INT8 output stands for; anything else as it is."""
    if detail is None or values.dtype.kind not in "iu" or detail["quantization"][0] == 0:
        return values
    scale, zero = detail["quantization"]
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, tuple[list[float], list[float]]]:
    """Microseconds a call, two lists for each, whose ratio is noise: bursts of all of them take turns, each twice."""
    bursts = {}
    for name, call in calls.items():
        call()
        started = clock()
        call()
        bursts[name] = max(1, min(200, round(BURST_S / max(clock() - started, 1e-7))))
    samples: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls}
    started = clock()
    for done in range(ROUNDS):
        if done >= LEAST_ROUNDS and clock() - started > BUDGET_S:
            break
        for turn in (0, 1) if done % 2 else (1, 0):
            for name, call in calls.items():
                before = clock()
                for _ in range(bursts[name]):
                    call()
                samples[name][turn].append((clock() - before) / bursts[name] * 1e6)
    return samples


def _answers(job: Mapping[str, Any], out: str, file: str) -> None:
    np.savez(out, **Opened(job, Path(file)).answers())


def _times(job: Mapping[str, Any], out: str, *named: str) -> None:
    files = dict(each.split("=", 1) for each in named)
    calls = {}
    for name, file in files.items():
        opened = Opened(job, Path(file))
        caller = opened.engine.caller(opened.rows)
        if caller is not None:
            calls[name] = caller
    Path(out).write_text(json.dumps(interleaved(calls)))


if __name__ == "__main__":
    {"answers": _answers, "times": _times}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()), *sys.argv[3:])
