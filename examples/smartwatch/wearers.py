"""2,000 wearers who report telemetry every day, for weeks that pass in seconds.

Privacy noise hides what fewer than some hundred devices do, so drift needs a fleet of this size. The runtimes are not
started 2,000 times: a window's answer is the same on every watch, so each window is answered once by a real
`EdgeRuntime`, and every device-day resamples windows. What travels is real: the device's histograms, its wire form and
its upload, over HTTP, through the recording proxy, into the server's ingest.
"""

from __future__ import annotations

import multiprocessing
import secrets
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.prediction import REASON_CELLS
from edge_runtime.telemetry.histograms import Histograms
from edge_runtime.telemetry.layout import LATENCY_CELLS, LATENCY_DEVICE, REASONS, Layout, latency_bin, latency_cell
from edge_runtime.telemetry.wire import PrivacyMode, ReportArm, ReportHeader, encode_report
from examples.smartwatch.data import Windows

WINDOWS_A_DAY = 100
AT_ONCE = 16  # devices of each process that report at the same time, as those of a fleet do
MIX_CONCENTRATION = 3.0  # of each wearer's own mix of exercises: real fleets differ from device to device


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the model answered for n windows: telemetry features float64 [n, f] and, per window, the class, the
    confidence, the latency cell and the cell of the reason."""

    features: NDArray[np.float64]
    classes: NDArray[np.int64]
    confidences: NDArray[np.float64]
    latency_cells: NDArray[np.int64]
    reasons: NDArray[np.int64]

    @classmethod
    def of(cls, runtime: Any, layout: Layout, x: NDArray[np.float32]) -> Answers:
        """Ask ``runtime`` (an open `EdgeRuntime`) about every window of ``x``, float32 [n, 100, 6]."""
        from edge_runtime.telemetry.features import feature_values

        predictions = [runtime.predict({"window": window}) for window in x]
        return cls(
            features=feature_values(layout.features, {"window": x}),
            classes=np.array([p.index for p in predictions], dtype=np.int64),
            confidences=np.array([p.confidence for p in predictions]),
            latency_cells=np.array([latency_cell(LATENCY_DEVICE, latency_bin(p.latency_us)) for p in predictions]),
            reasons=np.array([REASON_CELLS[p.reason] for p in predictions]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wearers:
    """The fleet: ``subject`` (int64 [devices]) wears each watch, ``mix`` (float64 [devices, 7]) is what they do."""

    windows: Windows
    subject: NDArray[np.int64]
    mix: NDArray[np.float64]
    strapped_wrong: NDArray[np.bool_]  # whose watch is turned once the turn has come

    @classmethod
    def make(cls, windows: Windows, *, devices: int, wrong_share: float, seed: int) -> Wearers:
        rng = np.random.default_rng(seed)
        classes = int(windows.y.max()) + 1
        wrong = np.zeros(devices, dtype=bool)
        wrong[rng.permutation(devices)[: round(devices * wrong_share)]] = True
        return cls(
            windows=windows,
            subject=rng.choice(np.unique(windows.subject), size=devices),
            mix=rng.dirichlet(np.full(classes, MIX_CONCENTRATION), size=devices),
            strapped_wrong=wrong,
        )

    def rows(self, device: int, day: int, seed: int) -> NDArray[np.intp]:
        """The windows that one device saw on one day."""
        rng = np.random.default_rng((seed, device, day))
        weight = self.mix[device][self.windows.y] * (self.windows.subject == self.subject[device])
        total = np.cumsum(weight)
        chosen: NDArray[np.intp] = np.searchsorted(total, rng.random(WINDOWS_A_DAY) * total[-1])
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """Everything that a sending process needs. ``sender`` is the folder of an enrolled device that signs for all of
    them: a report is anonymous, and the server lets go of who sent it."""

    server: str
    root: bytes
    sender: Path
    model: str
    release: int
    layout: Layout
    wearers: Wearers
    normal: Answers
    turned: Answers
    seed: int


class Days:
    """Sends days of reports from two processes. Use as a context manager."""

    def __init__(self, uplink: Uplink, *, processes: int = 2) -> None:
        self._devices = len(uplink.wearers.subject)
        self._processes = processes
        self._pool = ProcessPoolExecutor(
            processes, mp_context=multiprocessing.get_context("spawn"), initializer=_start, initargs=(uplink,)
        )

    def __enter__(self) -> Days:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def send(self, day: int, *, turned: bool, progress: Callable[[int], None] | None = None) -> int:
        """Every device reports ``day`` (days since 1970-01-01); returns how many reports the server took."""
        parts = np.array_split(np.arange(self._devices), self._processes)
        taken = 0
        for count in self._pool.map(_send, parts, [day] * len(parts), [turned] * len(parts)):
            taken += count
            if progress is not None:
                progress(taken)
        return taken


_uplink: Uplink
_client: Any
_sender: Any


def _start(uplink: Uplink) -> None:
    import httpx

    from edge_runtime.enrolment.command import open_enroller

    global _uplink, _client, _sender
    _uplink = uplink
    _client = httpx.Client(timeout=30.0)
    _sender = open_enroller(uplink.sender, uplink.server, uplink.root)


def _send(devices: NDArray[np.intp], day: int, turned: bool) -> int:
    from edge_runtime.telemetry.upload import upload

    u = _uplink

    def send_one(device: int) -> bool:
        answers = u.turned if turned and u.wearers.strapped_wrong[device] else u.normal
        report = _report(u, answers, u.wearers.rows(device, day, u.seed), day)
        return upload(report, _client, u.server, _sender)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(send_one, devices.tolist()))


def _report(u: Uplink, answers: Answers, rows: NDArray[np.intp], day: int) -> bytes:
    histograms = Histograms(u.layout)
    histograms.observe_many(answers.features[rows], answers.classes[rows], answers.confidences[rows])
    histograms.add_counts(
        {
            LATENCY_DEVICE: np.bincount(answers.latency_cells[rows], minlength=LATENCY_CELLS).tolist(),
            REASONS: np.bincount(answers.reasons[rows], minlength=16).tolist(),
        }
    )
    header = ReportHeader(
        mode=PrivacyMode.CENTRAL,
        arm=ReportArm.NONE,
        release=u.release,
        day=day,
        daily_id=secrets.token_bytes(16),
        model=u.model,
        kind=u.layout.kind,
    )
    return encode_report(header, histograms)


def turn(windows: Windows, axis: int) -> Windows:
    """The same windows from a watch that is strapped on the other way round: one axis points the other way."""
    x = windows.x.copy()
    x[:, :, axis] *= -1.0
    return replace(windows, x=x)
