"""Third stage, once a target × precision: the float file, quantized as far as the limit allows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.data import Dataset
from converters.engines import open_engine
from converters.errors import InvalidRequest, QuantizationRefused
from converters.progress import Say
from converters.quantize.formats import engine_version, inspect_model, open_quantizer, operators_of
from converters.quantize.found import Tried
from converters.quantize.reasons import why_not, why_nothing
from converters.quantize.recipes import Recipe, ladder_from, load_recipe
from converters.quantize.search import search
from converters.quantize.weights import Quantized
from converters.sources.base import is_batched
from converters.splitting import split_rows
from converters.stages.files import model_file, read_answers, read_data
from converters.stages.measure import CALIBRATION_SHARES
from converters.stages.sources import SourceInfo
from converters.task import LEAST_R2, Task
from edge_runtime.bundle import KeptFloat
from edge_runtime.bundle.manifest import Precision, Target

__all__ = ["Job", "Result", "run"]

MAX_RANGE_ROWS = 512  # evenly spread; ranges hardly move beyond
MAX_HELD_OUT_ROWS = 1024
JACKKNIFE_PARTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``limit`` bounds what may be lost on the held-out part of the calibration rows; ``recipe`` None means that the
    search chooses; after ``search_seconds`` of one precision no more units go back to float; ``fallback`` allows the
    next."""

    target: Target
    precision: Precision
    file: str
    info: SourceInfo
    task: Task
    work: str
    limit: float
    recipe: str | None
    search_seconds: float
    fallback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``precision`` is what was reached; ``reason`` says why it is not what was asked for, if so."""

    file: str
    bytes: int
    sha256: str
    precision: Precision
    recipe: str | None
    weight_share: float
    float_operators: tuple[str, ...]
    operators: tuple[str, ...]
    minimum_engine_version: str
    kept: tuple[KeptFloat, ...] = ()
    candidates: tuple[Tried, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()


def run(job: Job, say: Say) -> Result:
    """Raises `QuantizationRefused` where nothing that was asked for, or may be tried, holds the limit."""
    if job.info.precision != "fp32":
        return _as_given(job)
    model = Path(job.file).read_bytes()
    if job.precision == "fp32":
        return _result(job, model, "fp32", None)
    calibration = read_data(job.work, "calibration")
    if calibration is None:
        raise InvalidRequest(f"{job.precision} needs calibration data")
    # The third part is kept for temperature and threshold, where no other data is given for them.
    parts = split_rows(calibration, CALIBRATION_SHARES)
    if read_data(job.work, "confidence") is not None or calibration.labels is None:
        parts = (parts[0], np.sort(np.concatenate(parts[1:])))
    say(f"{job.target} {job.precision}: reading the float model", 0, 1)
    ranges = calibration.at(parts[0]).take(MAX_RANGE_ROWS)
    batched = is_batched(job.info.inputs)
    quantizer = open_quantizer(
        job.target, model, ranges.inputs, [spec.name for spec in job.info.outputs], batched=batched
    )
    held_out = _HeldOut(job, calibration, parts[1])
    found = search(
        quantizer,
        model,
        held_out.drop,
        recipes=_recipes(job),
        limit=job.limit,
        error=held_out.error,
        uncertainty=held_out.uncertainty,
        seconds=job.search_seconds,
        clock=time.monotonic,
        progress=lambda text, done, total: say(f"{job.target}: {text}", done, total),
    )
    if not found.holds or (found.precision != job.precision and not job.fallback):
        best = min((each.drop for each in found.tried if each.drop is not None and each.recipe), default=None)
        raise QuantizationRefused(
            f"no {job.precision} holds the limit of {job.limit:g} on {held_out.rows} held-out calibration rows"
            + (
                f"; the best of {len(found.tried)} candidates loses {best:.4f}"
                if best is not None
                else f": {why_nothing(found.tried)}"
            )
            + ("" if job.fallback else "; allow the next precision, or a wider limit")
        )
    reason = "" if found.precision == job.precision else why_not(found, job.precision, job.limit, held_out.rows)
    result = _result(job, found.data, found.precision, found.recipe, found.quantized)
    return replace(
        result,
        kept=tuple(KeptFloat(unit=each.unit.name, reason=each.reason) for each in found.kept),
        candidates=found.tried,
        reason=reason,
        notes=_spared(found.spared),
    )


def _recipes(job: Job) -> tuple[Recipe, ...]:
    """The recipe that was asked for, then the ladder below it; or the whole ladder."""
    ladder = ladder_from(job.precision)
    if job.recipe is not None:
        chosen = load_recipe(job.recipe)
        if chosen.precision != job.precision:
            raise InvalidRequest(f"quantization {chosen.name} is {chosen.precision}, not {job.precision}")
        ladder = (chosen, *(recipe for recipe in ladder if recipe.precision != job.precision))
    if not job.fallback:
        ladder = tuple(recipe for recipe in ladder if recipe.precision == job.precision)
    return ladder


class _HeldOut:
    """What a candidate loses on calibration rows that gave no ranges."""

    def __init__(self, job: Job, calibration: Dataset, chosen: np.ndarray) -> None:
        if len(chosen) > MAX_HELD_OUT_ROWS:
            chosen = chosen[np.linspace(0, len(chosen) - 1, MAX_HELD_OUT_ROWS).round().astype(np.intp)]
        self._job = job
        self._data = calibration.at(chosen)
        self._expected = {name: array[chosen] for name, array in read_answers(job.work, "calibration").items()}
        truth = job.task.truth(self._data)
        skilled = truth is not None and job.task.is_skilled(self._expected, truth)
        self._truth = truth if skilled else None  # as the gate does, see `measure.Result.drop`
        self._all = np.arange(len(chosen))
        self._known: dict[bytes, dict[str, np.ndarray]] = {}
        self.rows = len(chosen)

    def drop(self, data: bytes) -> float:
        """Of accuracy against the source's, or of agreement with it where labels are of no use."""
        return self._drop(self._outputs(data), self._all)

    def uncertainty(self, data: bytes) -> float:
        """Standard error of `drop`, by the jackknife: each twentieth of the rows is left out in turn. Parts are
        neighbors, which are often alike."""
        outputs = self._outputs(data)
        parts = np.array_split(self._all, min(JACKKNIFE_PARTS, self.rows))
        if len(parts) < 2:
            return np.inf
        drops = np.array([self._drop(outputs, np.delete(self._all, part)) for part in parts])
        return float(np.sqrt((len(parts) - 1) * drops.var()))

    def _drop(self, outputs: Mapping[str, np.ndarray], rows: np.ndarray) -> float:
        task = self._job.task
        expected = {name: array[rows] for name, array in self._expected.items()}
        outputs = {name: array[rows] for name, array in outputs.items()}
        if self._truth is None:
            drop = 1 - task.agreement(expected, outputs)
        else:
            truth = self._truth[rows]
            drop = task.accuracy(expected, truth) - task.accuracy(outputs, truth)
        # An output that decides nothing counts once it says something else: the gate refuses it then.
        return max([drop, *(1 - value for value in task.others(expected, outputs).values() if value < LEAST_R2)])

    def error(self, data: bytes) -> float:
        """Mean squared difference of the first output from the source's: chooses between equal drops."""
        expected = self._expected[self._job.task.output].astype(np.float64)
        outputs = self._outputs(data)[self._job.task.output].astype(np.float64).reshape(expected.shape)
        both = np.isfinite(expected) & np.isfinite(outputs)
        return float(((expected - outputs)[both] ** 2).mean()) if both.any() else np.inf

    def _outputs(self, data: bytes) -> dict[str, np.ndarray]:
        key = hashlib.sha256(data).digest()
        if key not in self._known:
            engine = open_engine(self._job.target, data, self._job.info.inputs, self._job.info.outputs)
            self._known[key] = engine.run(self._data.inputs)
        return self._known[key]


def _spared(units: Sequence[str]) -> tuple[str, ...]:
    """What else computes in float, for the report."""
    if not units:
        return ()
    only = "only units left in float read what they give"
    return (f"with weights in INT8, but computed in float, since {only}: {', '.join(units)}",)


def _as_given(job: Job) -> Result:
    """A finished file that is quantized already: nothing is left to do but to say what it is."""
    model = Path(job.file).read_bytes()
    result = _result(job, model, job.info.precision, None)
    if job.precision == job.info.precision:
        return result
    if not job.fallback:
        raise QuantizationRefused(f"the source is {job.info.precision} already, and cannot become {job.precision}")
    return replace(result, reason=f"the source is {job.info.precision} already, and was passed through as it is")


def _result(job: Job, data: bytes, precision: Precision, recipe: str | None, inside: Quantized | None = None) -> Result:
    file = model_file(job.work, job.target, f"{job.precision}-made")
    file.write_bytes(data)
    inside = inside or inspect_model(job.target, data)
    return Result(
        file=str(file),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        precision=precision,
        recipe=recipe,
        weight_share=inside.share,
        float_operators=() if precision == "fp32" else inside.float_operators,
        operators=operators_of(job.target, data),
        minimum_engine_version=engine_version(job.target, precision, data),
    )
