"""What happens to the device of a trial, one function for each of its processes, and what must be true at the end.

1. `first`: starts from the factory model, updates to release 2, answers, commits it.
2. `second`: updates to release 3, which crashes the application before it has answered once.
3. `crashed`: twice more.
4. `last`: release 3 has crash-looped; the device goes back to release 2, and the plan's attempt is denied.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.faults.releases import MODEL
from devices.faults.site import SERVER, Site, client_of
from edge_runtime import DeviceState, EdgeRuntime
from edge_runtime.device import Device
from edge_runtime.disk import Disk
from edge_runtime.store import read_slots

__all__ = ["BAD", "GOOD", "STORY", "Answer", "Process", "start_again"]

GOOD, BAD = 2, 3
COMMIT_AFTER = 3
CRASHED = 9  # exit status of an application that the bad release brought down
X = np.array([0.5, -1.0, 2.0, 0.25], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a start of the device led to. ``release`` answered; ``true`` whether with the output that its signed weights
    give; ``settled`` whether the device is where the story ends."""

    release: int | None
    true: bool
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of the device: ``run`` over a state folder and a disk. ``candidate``: the plan that it sees."""

    name: str
    candidate: int
    run: Callable[[Site, Path, Disk], None]


def _open(site: Site, state: Path, disk: Disk | None, candidate: int) -> EdgeRuntime:
    return EdgeRuntime.open(
        state,
        model=MODEL,
        root=site.root,
        server=SERVER,
        factory=site.factory,
        device=Device(id="device-1", attributes={"arch": "any", "os": "any"}),
        engines=("onnx",),
        commit_after=COMMIT_AFTER,
        background=False,
        device_state=DeviceState,
        http=client_of(site.ports[candidate]),
        disk=disk,
    )


def _first(site: Site, state: Path, disk: Disk) -> None:
    with _open(site, state, disk, GOOD) as runtime:
        runtime.predict({"x": X})
        runtime.update()
        for _ in range(COMMIT_AFTER):
            runtime.predict({"x": X})
        runtime.update()
        runtime.report()


def _second(site: Site, state: Path, disk: Disk) -> None:
    runtime = _open(site, state, disk, BAD)
    runtime.predict({"x": X})
    runtime.update()
    os._exit(CRASHED)


def _crashed(site: Site, state: Path, disk: Disk) -> None:
    _open(site, state, disk, BAD)
    os._exit(CRASHED)


def _last(site: Site, state: Path, disk: Disk) -> None:
    with _open(site, state, disk, BAD) as runtime:
        runtime.predict({"x": X})
        runtime.update()
        runtime.report()


STORY = (
    Process(name="first", candidate=GOOD, run=_first),
    Process(name="second", candidate=BAD, run=_second),
    Process(name="crashed", candidate=BAD, run=_crashed),
    Process(name="crashed again", candidate=BAD, run=_crashed),
    Process(name="last", candidate=BAD, run=_last),
)


def start_again(site: Site, state: Path, candidate: int) -> Answer:
    """What an application does that is started on the device: open, answer, check, answer. The bad release still
    brings it down."""
    with contextlib.ExitStack() as closing:
        runtime = closing.enter_context(_open(site, state, None, candidate))
        if runtime.release == BAD:
            os._exit(CRASHED)
        before = runtime.predict({"x": X})
        true = _is_true(site, before.release, before.output["y"])
        runtime.update()
        if runtime.release == BAD:
            os._exit(CRASHED)
        for _ in range(COMMIT_AFTER):
            after = runtime.predict({"x": X})
            true = true and _is_true(site, after.release, after.output["y"])
        result = runtime.update()
        slots = read_slots(state)
        settled = slots.trial is None and slots.active is not None and slots.active.release == GOOD
        if candidate == BAD:
            settled = settled and any(denied.release == BAD for denied in slots.denied)
        return Answer(release=before.release, true=true, settled=settled and result.active == GOOD)


def _is_true(site: Site, release: int | None, output: np.ndarray) -> bool:
    if release not in site.releases:
        return False
    return bool(np.allclose(output, site.releases[release].expected(X[np.newaxis])[0], atol=1e-4))
