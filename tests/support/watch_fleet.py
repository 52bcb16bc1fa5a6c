"""A fleet of watches that replay real recordings: each device knows one or two of ten people, and no two are alike.

The data are seglearn's smartwatch recordings (BSD-3); only the array file is read. A softmax regression stands for the
model, so that predicted classes and confidences are those of a real, imperfect model that meets unseen people.
"""

from __future__ import annotations

import importlib.util
import secrets
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle import Feature, Manifest, TensorSpec
from edge_runtime.bundle.manifest import Reference
from edge_runtime.telemetry.features import feature_cells
from edge_runtime.telemetry.histograms import Histograms
from edge_runtime.telemetry.layout import CLASSES, CONFIDENCE, LATENCY_CLOUD, LATENCY_DEVICE, REASONS, Layout
from edge_runtime.telemetry.wire import PrivacyMode, ReportArm, ReportHeader, encode_report
from tests.support import bundles

AXES = ("ax", "ay", "az", "gx", "gy", "gz")
TRAIN_SUBJECTS = range(1, 8)
WINDOWS_A_DAY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """``windows`` float64[n, 100, 6], ``subject`` and ``label`` int[n]."""

    windows: NDArray[np.float64]
    subject: NDArray[np.int64]
    label: NDArray[np.int64]

    @property
    def train(self) -> NDArray[np.bool_]:
        return np.isin(self.subject, TRAIN_SUBJECTS)


@cache
def recordings() -> Recordings:
    spec = importlib.util.find_spec("seglearn")
    assert spec is not None
    assert spec.origin is not None
    stored = np.load(Path(spec.origin).parent / "data" / "watch_dataset.npy", allow_pickle=True).item()
    windows, subject, label = [], [], []
    for x, who, what in zip(stored["X"], stored["subject"], stored["y"], strict=True):
        for start in range(0, len(x) - 99, 50):
            windows.append(x[start : start + 100])
            subject.append(int(who))
            label.append(int(what))
    return Recordings(windows=np.array(windows), subject=np.array(subject), label=np.array(label))


class Model:
    """A softmax regression on mean and deviation of each axis and their squares; about .77 on unseen people."""

    def __init__(self) -> None:
        data = recordings()
        raw = self._raw(data.windows[data.train])
        self._centre, self._spread = raw.mean(axis=0), raw.std(axis=0)
        design, target = self._design(raw), np.eye(7)[data.label[data.train]]
        self._weights = np.zeros((design.shape[1], 7))
        for _ in range(500):
            error = self._softmax(design) - target
            self._weights -= 0.5 * (design.T @ error / len(design) + 1e-4 * self._weights)

    def __call__(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class probabilities, float64[n, 7]."""
        return self._softmax(self._design(self._raw(windows)))

    def _softmax(self, design: NDArray[np.float64]) -> NDArray[np.float64]:
        logits = design @ self._weights
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    @staticmethod
    def _raw(windows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([windows.mean(axis=1), windows.std(axis=1)], axis=1)

    def _design(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        z = (raw - self._centre) / self._spread
        return np.concatenate([z, z**2, np.ones((len(z), 1))], axis=1)


@cache
def model() -> Model:
    return Model()


def _cells(windows: NDArray[np.float64], features: tuple[Feature, ...]) -> dict[str, NDArray[np.int64]]:
    """The cell of each window in every monitored histogram."""
    means = windows.mean(axis=1)
    answers = model()(windows)
    cells = {
        f"feature:{feature.name}": feature_cells(feature.edges, means[:, column]).astype(np.int64)
        for column, feature in enumerate(features)
    }
    cells[CLASSES] = answers.argmax(axis=1).astype(np.int64)
    cells[CONFIDENCE] = np.minimum((answers.max(axis=1) * 20).astype(np.int64), 19)
    return cells


def _shares(cells: NDArray[np.int64], size: int) -> tuple[float, ...]:
    return tuple((np.bincount(cells, minlength=size) / len(cells)).tolist())


@cache
def manifest(name: str = "exercise", release: int = 2) -> Manifest:
    """A release whose telemetry reference was measured on the seven training subjects."""
    data = recordings()
    train = data.windows[data.train]
    edges = np.quantile(train.mean(axis=1), np.linspace(0, 1, 17), axis=0)
    bare = tuple(
        Feature(name=axis, input="window", reduce="mean", index=i, edges=tuple(edges[:, i].tolist()), shares=())
        for i, axis in enumerate(AXES)
    )
    cells = _cells(train, bare)
    features = tuple(
        Feature(
            name=f.name,
            input=f.input,
            reduce=f.reduce,
            index=f.index,
            edges=f.edges,
            shares=_shares(cells[f"feature:{f.name}"], 19),
        )
        for f in bare
    )
    reference = Reference(
        features=features, classes=_shares(cells[CLASSES], 7), confidence=_shares(cells[CONFIDENCE], 20)
    )
    labels = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    return bundles.manifest(
        model=name,
        release=release,
        labels=labels,
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 7)),),
        artifacts=(
            bundles.artifact(bundles.FILES["model-fp32.onnx"], reference=reference),
            replace(
                bundles.artifact(bundles.FILES["model-fp32.onnx"], reference=reference),
                target="tflite",
                precision="int8",
                file="model-int8.tflite",
                golden=replace(bundles.artifact().golden, file="model-int8.tflite.golden.npz"),
            ),
        ),
    )


@cache
def layout() -> Layout:
    return Layout.of(manifest().artifacts[0])


class WatchFleet:
    """``devices`` watches; `day` gives one day's reports as the histograms' wire bytes."""

    def __init__(self, devices: int, seed: int, *, windows: int = WINDOWS_A_DAY, taking_part: float = 1.0) -> None:
        """``taking_part`` is the share of devices that report on a given day."""
        self._rng = np.random.default_rng(seed)
        self._windows = windows
        self._taking_part = taking_part
        data = recordings()
        of_subject = [np.flatnonzero(data.subject == who) for who in np.unique(data.subject)]
        pools = [
            np.concatenate([of_subject[i] for i in self._rng.choice(10, self._rng.integers(1, 3), replace=False)])
            for _ in range(devices)
        ]
        self._sizes = np.array([len(pool) for pool in pools])
        self._pools = np.zeros((devices, self._sizes.max()), np.int64)
        for row, pool in zip(self._pools, pools, strict=True):
            row[: len(pool)] = pool
        self.devices = devices

    def choose(self, share: float) -> NDArray[np.bool_]:
        """A random ``share`` of the devices."""
        return self._rng.random(self.devices) < share

    def day(self, turned: NDArray[np.bool_] | None = None, axis: str = "az") -> NDArray[np.uint8]:
        """uint8[reports, bytes]: every device draws ``windows`` of its own people's windows; those in ``turned`` wear
        the watch the other way round, which flips ``axis``."""
        here = np.flatnonzero(self._rng.random(self.devices) < self._taking_part)
        draws = (self._rng.random((len(here), self._windows)) * self._sizes[here, None]).astype(np.int64)
        windows = self._pools[here[:, None], draws]
        normal, flipped = _tables(None), _tables(axis)
        wrong = np.zeros(len(here), bool) if turned is None else turned[here]
        counts: dict[str, NDArray[np.int64]] = {}
        for name, size in layout().histograms:
            if name in normal:
                cells = np.where(wrong[:, None], flipped[name][windows], normal[name][windows])
                keys = (np.arange(len(here))[:, None] * size + cells).ravel()
                counts[name] = np.bincount(keys, minlength=len(here) * size).reshape(-1, size)
            else:
                counts[name] = np.zeros((len(here), size), np.int64)
        # A device's own speed, and one window in five from the cloud.
        centre = self._rng.integers(20, 60, len(here))
        for step, count in ((0, 50), (1, 30), (2, 20)):
            counts[LATENCY_DEVICE][np.arange(len(here)), centre + step] = count
        counts[LATENCY_CLOUD][np.arange(len(here)), centre + 10] = 20
        counts[REASONS][:, 0], counts[REASONS][:, 1] = 80, 20
        return wire_rows(counts)


def wire_rows(counts: dict[str, NDArray[np.int64]]) -> NDArray[np.uint8]:
    """Counts up to 255 as the wire form has them, many reports at once."""
    parts = []
    for name, _ in layout().histograms:
        assert counts[name].max() <= 255
        parts += [np.zeros((len(counts[name]), 1), np.uint8), counts[name].astype(np.uint8)]
    return np.concatenate(parts, axis=1)


def reports(
    rows: NDArray[np.uint8],
    day: int,
    *,
    release: int = 2,
    arm: ReportArm = ReportArm.NONE,
    mode: PrivacyMode = PrivacyMode.CENTRAL,
    kind: str = "onnx/fp32",
    model: str = "exercise",
) -> list[bytes]:
    """Whole reports, each under a fresh daily id, from histograms in wire form."""
    prefix, suffix = _header(release, arm, day, mode, kind, model)
    return [prefix + secrets.token_bytes(16) + suffix + row.tobytes() for row in rows]


@cache
def _header(release: int, arm: ReportArm, day: int, mode: PrivacyMode, kind: str, model: str) -> tuple[bytes, bytes]:
    header = ReportHeader(
        mode=mode, arm=arm, release=release, day=day, daily_id=bytes(16), model=model, kind=layout().kind
    )
    data = encode_report(header, Histograms(layout()))
    start = len(data) - layout().cells - len(layout().histograms)
    encoded = layout().kind.encode()
    other = kind.encode()
    middle = data[30:start].replace(bytes([len(encoded)]) + encoded, bytes([len(other)]) + other)
    return data[:14], middle


@cache
def _tables(axis: str | None) -> dict[str, NDArray[np.int64]]:
    reference = manifest().artifacts[0].reference
    assert reference is not None
    windows = recordings().windows
    if axis is not None:
        windows = windows.copy()
        windows[:, :, AXES.index(axis)] *= -1
    return _cells(windows, reference.features)
