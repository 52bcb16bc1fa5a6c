"""One release, ready to answer: everything a prediction needs, in one object that is replaced as a whole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edge_runtime.errors import EngineFailed, InputError
from edge_runtime.hybrid.deferral import score, score_probabilities
from edge_runtime.hybrid.policy import Mode
from edge_runtime.inputs import InputCheck
from edge_runtime.prediction import Reason
from edge_runtime.telemetry.layout import REFUSED, REFUSED_KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import Artifact, Manifest, Score
    from edge_runtime.hybrid.policy import RoutingPolicy
    from edge_runtime.session import Session
    from edge_runtime.stats import Counters
    from edge_runtime.telemetry.spool import Recorder
    from edge_runtime.update.plan import Arm

__all__ = ["Failure", "Loaded", "Local", "make_loaded", "microseconds_since", "run_local", "run_rows", "score_array"]

FEW = 64  # up to so many classes, plain Python is faster than NumPy


class Local(NamedTuple):
    """A finite answer of the local model: outputs without the batch axis, the winning class and its confidence (None
    where the model has no labels or no confidence rule)."""

    outputs: dict[str, NDArray[Any]]
    winner: int | None
    confidence: float | None


class Failure(NamedTuple):
    """The local model was run and has no answer."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """``session`` is None where local inference is switched off. ``threshold`` is None where every finite answer is
    trusted; ``scored`` says whether confidences are computed, ``kind`` from what."""

    release: int
    arm: Arm
    manifest: Manifest
    artifact: Artifact
    session: Session | None
    check: InputCheck
    labels: tuple[str, ...]
    decides: bool
    scored: bool
    kind: Score
    temperature: float
    threshold: float | None
    batched: bool
    first: str
    outputs: tuple[tuple[str, bool], ...]  # name, and whether it has a batch axis
    counters: Counters
    recorder: Recorder | None

    def refuse(self, error: InputError) -> None:
        """Count an input that is refused with ``error``."""
        self.counters.refuse()
        kind = type(error).__name__
        if self.recorder is not None and kind in REFUSED_KINDS:
            self.recorder.histograms.count(REFUSED, REFUSED_KINDS.index(kind))


def make_loaded(
    session: Session | None,
    manifest: Manifest,
    artifact: Artifact,
    *,
    arm: Arm,
    policy: RoutingPolicy,
    counters: Counters,
    recorder: Recorder | None,
) -> Loaded:
    """Work out once what every prediction needs."""
    confidence = artifact.confidence
    first = manifest.outputs[0]
    axes = first.shape[1:] if first.shape[:1] == ("batch",) else first.shape
    # One row of scores an example; anything else has no single winning class.
    decides = bool(manifest.labels) and math.prod(a if isinstance(a, int) else 0 for a in axes) == len(manifest.labels)
    scored = decides and (confidence is not None or policy.threshold is not None)
    own = None if confidence is None else confidence.threshold
    return Loaded(
        release=manifest.release,
        arm=arm,
        manifest=manifest,
        artifact=artifact,
        session=session,
        check=InputCheck(
            manifest.inputs,
            manifest.hybrid.inputs if manifest.hybrid is not None else (),
            require_local=policy.mode is not Mode.ONLY_IN_CLOUD,
        ),
        labels=manifest.labels,
        decides=decides,
        scored=scored,
        kind="msp" if confidence is None else confidence.score,
        temperature=1.0 if confidence is None else confidence.temperature,
        threshold=None if not scored else own if policy.threshold is None else policy.threshold,
        batched=all(spec.shape[:1] == ("batch",) for spec in manifest.inputs),
        first=first.name,
        outputs=tuple((spec.name, spec.shape[:1] == ("batch",)) for spec in manifest.outputs),
        counters=counters,
        recorder=recorder,
    )


def run_local(loaded: Loaded, session: Session, feed: Mapping[str, NDArray[Any]]) -> Local | Failure:
    """Run one checked example. What the engine raises, and what is not finite, is a `Failure`."""
    try:
        return judge(loaded, session.engine.run(feed))
    except EngineFailed as error:
        return Failure(Reason.ENGINE_FAILED, str(error))


def run_rows(loaded: Loaded, session: Session, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> list[Local | Failure]:
    """Run many checked examples, in one run of the engine where the model has a batch axis and the shapes agree."""
    shapes = {tuple(array.shape for array in feed.values()) for feed in feeds}
    if not (loaded.batched and len(feeds) > 1 and len(shapes) == 1 and all(batched for _, batched in loaded.outputs)):
        return [run_local(loaded, session, feed) for feed in feeds]
    stacked = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    try:
        outputs = session.engine.run(stacked)
    except EngineFailed as error:
        return [Failure(Reason.ENGINE_FAILED, str(error))] * len(feeds)
    if any(len(array) != len(feeds) for array in outputs.values()):
        return [Failure(Reason.ENGINE_FAILED, "the engine answered with another number of rows")] * len(feeds)
    return [judge(loaded, {name: array[i : i + 1] for name, array in outputs.items()}) for i in range(len(feeds))]


def judge(loaded: Loaded, outputs: dict[str, NDArray[Any]]) -> Local | Failure:
    """The decision and confidence of one example's outputs, or the failure that a value is not finite."""
    try:
        given = {name: outputs[name][0] if batched else outputs[name] for name, batched in loaded.outputs}
    except IndexError:
        return Failure(Reason.ENGINE_FAILED, "the local model answered without a row")
    if not loaded.decides:
        return Local(given, None, None) if _finite(given.values()) else _NON_FINITE
    logits = given[loaded.first]
    if logits.size != len(loaded.labels):
        return Failure(
            Reason.ENGINE_FAILED, f"the local model answered with {logits.size} scores for {len(loaded.labels)} labels"
        )
    scored = score_array(logits, loaded.temperature, loaded.kind)
    if scored is None or (len(given) > 1 and not _finite(given.values())):
        return _NON_FINITE
    winner, confidence = scored
    return Local(given, winner, confidence if loaded.scored else None)


_NON_FINITE = Failure(Reason.NON_FINITE_OUTPUT, "the local model answered with NaN or infinity")


_FEW: dict[Score, Callable[[Sequence[float], float], tuple[int, float] | None]] = {
    "msp": score,
    "probability": score_probabilities,
}


def score_array(outputs: NDArray[Any], temperature: float, kind: Score = "msp") -> tuple[int, float] | None:
    """The rule ``kind`` of `edge_runtime.hybrid.deferral` for an array of any shape, in NumPy where there are many
    classes."""
    if outputs.size <= FEW:
        return _FEW[kind]((outputs if outputs.ndim == 1 else outputs.reshape(-1)).tolist(), temperature)
    values = outputs.reshape(-1).astype(np.float64)
    winner = int(values.argmax())
    largest = values[winner]
    if not (np.isfinite(largest) and np.isfinite(values.min())):
        return None
    if kind == "msp":
        return winner, float(1.0 / np.exp((values - largest) / temperature).sum())
    if largest <= 0:
        return winner, 0.0
    return winner, float(1.0 / ((np.maximum(values, 0.0) / largest) ** (1.0 / temperature)).sum())


def _finite(arrays: Any) -> bool:
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays)


def microseconds_since(start: float) -> float:
    """Since ``start``, a value of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1e6
