"""Check a bundle: every artifact on its golden examples, as a device would, and against its source if that is given."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.data import Dataset, check_dataset, load_dataset
from converters.engines import open_engine
from converters.errors import CheckFailed, InvalidRequest
from converters.parity import Parity, compare
from converters.progress import Say
from converters.stages.sources import SourceInfo, SourceRef, fetched, open_ref
from converters.task import Task, find_task
from edge_runtime import golden
from edge_runtime.bundle import Artifact, Bundle, Manifest, TensorSpec, open_bundle
from edge_runtime.errors import EdgeshipError

__all__ = ["Job", "Result", "Verified", "run"]


FLOAT_NOISE = 1e-4  # of the largest output: kernels of another machine add in another order
DECISIONS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``data`` is an ``.npz`` for the parity with ``source``; without it the golden inputs serve."""

    bundle: str
    source: SourceRef | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One artifact. ``passed``: it answers its golden examples, and as its source does, where one was given; the
    parity fields are None without one."""

    target: str
    precision: str
    passed: bool
    detail: str
    engine: str
    parity_rows: int | None = None
    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    decision_agreement: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    model: str
    release: int
    sha256: str
    artifacts: tuple[Verified, ...]


def run(job: Job, say: Say) -> Result:
    """Raises `BundleError`, and what opening the source raises."""
    bundle = open_bundle(job.bundle)
    manifest = bundle.manifest
    source = None
    if job.source is not None:
        with tempfile.TemporaryDirectory(prefix="edgeship-source-") as folder:
            source = open_ref(fetched(job.source, Path(folder), say))
    if source is not None:
        _refuse_other(SourceInfo.of(source), manifest)
    verified = []
    for index, artifact in enumerate(manifest.artifacts):
        say(f"{artifact.target} {artifact.precision}", index, len(manifest.artifacts))
        verified.append(_verified(bundle, artifact, source, job.data))
    return Result(model=manifest.model, release=manifest.release, sha256=bundle.sha256, artifacts=tuple(verified))


def _refuse_other(info: SourceInfo, manifest: Manifest) -> None:
    def names(specs: tuple[TensorSpec, ...]) -> list[str]:
        return sorted(spec.name for spec in specs)

    if names(info.inputs) != names(manifest.inputs) or names(info.outputs) != names(manifest.outputs):
        raise InvalidRequest(
            f"{info.name} has inputs {names(info.inputs)} and outputs {names(info.outputs)}, the bundle "
            f"{names(manifest.inputs)} and {names(manifest.outputs)}; it was not made of this source"
        )


def _verified(bundle: Bundle, artifact: Artifact, source: object, data: str | None) -> Verified:
    manifest = bundle.manifest
    examples = golden.read(bundle.read(artifact.golden.file))
    try:
        engine = open_engine(artifact.target, bundle.read(artifact.file), manifest.inputs, manifest.outputs)
        result = golden.compare(
            engine.run(examples.inputs), examples, artifact.golden.tolerance, decide=bool(manifest.labels)
        )
    except EdgeshipError as error:
        return Verified(
            target=artifact.target,
            precision=artifact.precision,
            passed=False,
            detail=f"{type(error).__name__}: {error}",
            engine="none",
        )
    verified = Verified(
        target=artifact.target,
        precision=artifact.precision,
        passed=result.passed,
        detail=f"{result.examples} golden examples" if result.passed else result.detail,
        engine=engine.name,
    )
    if source is None:
        return verified
    rows = examples.inputs
    if data is not None:
        rows = check_dataset(load_dataset(data), manifest.inputs).inputs
    expected = source.predict(rows)  # type: ignore[attr-defined]
    answers = engine.run(rows)
    if not any(np.isfinite(values).any() for values in expected.values()):
        raise CheckFailed("the source's own outputs are not finite for any of these rows")
    parity = compare(expected, answers)
    task = (
        Task(kind="regression", output=manifest.outputs[0].name)
        if manifest.task == "regression"
        else find_task(manifest.outputs, None, expected, Dataset(name="golden inputs", inputs=rows))
    )
    agreement = task.agreement(expected, answers)
    unlike = _unlike(artifact, parity, agreement)
    return replace(
        verified,
        passed=verified.passed and not unlike,
        detail="; ".join(filter(None, (verified.detail, unlike))),
        parity_rows=parity.rows,
        max_abs_error=parity.max_abs_error,
        mean_abs_error=parity.mean_abs_error,
        decision_agreement=agreement,
    )


def _unlike(artifact: Artifact, parity: Parity, agreement: float) -> str:
    """Why the source cannot be the model that the artifact was made of, or nothing.

    Other rows give other errors; but a mean error above the largest that was ever measured, or a tenth more of the
    decisions lost, is another model.
    """
    measured = artifact.measured
    if measured.max_abs_error is not None:
        largest = max(measured.max_abs_error, FLOAT_NOISE * max(1.0, parity.scale))
        if parity.mean_abs_error > largest:
            mean = f"{parity.mean_abs_error:.3g}"
            return (
                f"its outputs differ from the source's by {mean} on average, by at most {largest:.3g} when it was made"
            )
    if measured.decision_agreement is not None and agreement < measured.decision_agreement - DECISIONS:
        then = f"{measured.decision_agreement:.1%}"
        return f"it decides as the source in {agreement:.1%} of the rows, in {then} when it was made"
    return ""
