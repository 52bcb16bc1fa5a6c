"""Local first, cloud when it pays: unseen subjects' windows through `predict`, and what happens when the cloud dies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime import EdgeRuntime, Enrolment, Factory, RoutingPolicy
from examples.smartwatch.data import Windows

MODEL = "exercise"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the cloud model answers, the root that its server is trusted by, and the token that lets devices in, or
    None for devices that need not enrol."""

    url: str
    root: Path
    token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What `predict` answered for every window: who answered, whether it was right, the confidence of the device."""

    source: list[str]
    right: list[bool]
    degraded: list[bool]
    confidence: list[float | None]

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.right))

    def count(self, source: str) -> int:
        return self.source.count(source)


def open_runtime(bundle: Path, sha256: str, state: Path, endpoint: Endpoint, mode: Any, **policy: Any) -> EdgeRuntime:
    """What an app writes to embed the runtime: a state folder, the bundle that it ships, where the cloud is."""
    enrolment = None if endpoint.token is None else Enrolment(token=endpoint.token)
    runtime = EdgeRuntime.open(
        state,
        model=MODEL,
        factory=Factory(bundle, sha256=sha256),
        server=endpoint.url,
        root=endpoint.root,
        enrolment=enrolment,
        policy=RoutingPolicy(mode=mode, **policy),
        engines=("onnx",),
        background=False,
    )
    if enrolment is not None:
        runtime.enrol()
    return runtime


def serve(
    runtime: EdgeRuntime, windows: Windows, progress: Progress | None = None, rows: Sequence[int] | None = None
) -> Served:
    """``rows`` of ``windows``, all if not given, each with the windows before it as context for the cloud."""
    served = Served(source=[], right=[], degraded=[], confidence=[])
    rows = range(len(windows)) if rows is None else rows
    for done, i in enumerate(rows, start=1):
        prediction = runtime.predict({"window": windows.x[i], "context": windows.context(i)})
        served.source.append(prediction.source.value)
        served.right.append(prediction.index == windows.y[i])
        served.degraded.append(prediction.degraded)
        served.confidence.append(prediction.confidence)
        if progress is not None:
            progress(done, len(rows))
    return served


def curve(device: Served, cloud: Served) -> dict[str, list[float]]:
    """Accuracy against the share sent to the cloud, for every threshold: windows leave the device in the order of its
    confidence, least sure first."""
    order = np.argsort(np.array(device.confidence, dtype=np.float64), kind="stable")
    on_device = np.array(device.right, dtype=np.float64)[order]
    in_cloud = np.array(cloud.right, dtype=np.float64)[order]
    n = len(order)
    right = np.concatenate([[0.0], np.cumsum(in_cloud)]) + (
        on_device.sum() - np.concatenate([[0.0], np.cumsum(on_device)])
    )
    steps = np.linspace(0, n, 101).astype(int)
    return {"share": (steps / n).tolist(), "accuracy": (right[steps] / n).tolist()}
