"""Golden examples: inputs with the outputs and decisions that an artifact must give on every device.

A golden file is a NumPy ``.npz`` without pickles: ``input:<name>`` and ``output:<name>`` with one example per entry of
their first axis, and ``decision``, int64, the argmax of the first output.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.backends.tensors import has_batch_axis
from edge_runtime.bundle.limits import MAX_GOLDEN_TOLERANCE
from edge_runtime.errors import ArchiveError, BundleTooLarge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.session import Session

__all__ = ["GoldenExamples", "GoldenResult", "check", "compare", "read", "write"]

MAX_ENTRIES = 64
MAX_BYTES = 64 * 2**20
MAX_EXAMPLES = 10_000
_KINDS = "fiub"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenExamples:
    """``inputs`` and ``outputs`` by manifest name, first axis = example; ``decision`` int64[n]."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    decision: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenResult:
    """How an engine did on the golden examples. ``limit`` is the difference that was allowed."""

    examples: int
    wrong_decisions: int
    max_difference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.wrong_decisions == 0 and self.max_difference <= self.limit

    @property
    def detail(self) -> str:
        return (
            f"{self.wrong_decisions} of {self.examples} golden decisions differ; largest difference "
            f"{self.max_difference:.6g}, allowed {self.limit:.6g}"
        )


def write(inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """A golden file of ``inputs`` and ``outputs`` (first axis = example; the first output decides).

    The same arrays give the same bytes.
    """
    arrays = {f"input:{name}": np.asarray(array) for name, array in inputs.items()}
    arrays.update({f"output:{name}": np.asarray(array) for name, array in outputs.items()})
    arrays["decision"] = _decisions(next(iter(outputs.values())))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), entry.getvalue())
    return out.getvalue()


def read(data: bytes) -> GoldenExamples:
    """Read an untrusted golden file. Raises `ArchiveError`, and `BundleTooLarge` when a cap is passed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = _arrays(archive)
    except (
        zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError, SyntaxError
    ) as error:  # fmt: skip
        raise ArchiveError(f"the golden file is damaged: {error}") from error
    inputs = {name[6:]: array for name, array in arrays.items() if name.startswith("input:")}
    outputs = {name[7:]: array for name, array in arrays.items() if name.startswith("output:")}
    decision = arrays.get("decision")
    if not inputs or not outputs or decision is None or decision.dtype != np.int64 or decision.ndim != 1:
        raise ArchiveError("the golden file needs input:<name>, output:<name> and decision (int64, one axis)")
    lengths = {array.shape[:1] for array in (*inputs.values(), *outputs.values(), decision)}
    if len(lengths) != 1 or not 1 <= len(decision) <= MAX_EXAMPLES:
        raise ArchiveError(f"the golden file's arrays must share a first axis of 1 to {MAX_EXAMPLES} examples")
    return GoldenExamples(inputs=inputs, outputs=outputs, decision=decision)


def check(session: Session, golden: GoldenExamples) -> GoldenResult:
    """Run the golden inputs: every output must be within the artifact's tolerance, a classifier's every decision equal.

    Where the model's tensors have no batch axis, each example is a call of its own. Raises `InputError` where the
    golden inputs are not the manifest's, and `EngineFailed`.
    """
    tolerance, decide = session.artifact.golden.tolerance, bool(session.manifest.labels)
    if has_batch_axis(session.manifest.inputs):
        return compare(session.run(golden.inputs), golden, tolerance, decide=decide)
    answers = [
        session.run({name: array[example] for name, array in golden.inputs.items()})
        for example in range(len(golden.decision))
    ]
    stacked = {name: np.stack([each[name] for each in answers]) for name in answers[0]}
    return compare(stacked, golden, tolerance, decide=decide)


def compare(
    answers: Mapping[str, NDArray[Any]], golden: GoldenExamples, tolerance: float, *, decide: bool
) -> GoldenResult:
    """Judge an engine's ``answers`` to the golden inputs, first output first; the reader's cap bounds the tolerance.

    ``decide`` compares decisions too: only a model with labels has any.
    """
    limit = min(tolerance, MAX_GOLDEN_TOLERANCE)
    largest = 0.0
    for name, expected in golden.outputs.items():
        answer = answers.get(name)
        if answer is None or answer.shape != expected.shape:
            largest = math.inf
            continue
        difference = np.abs(answer.astype(np.float64) - expected.astype(np.float64))
        # NaN compares false with every limit; say infinity, so that nothing can mistake it for a pass.
        largest = max(largest, float(np.max(difference, initial=0.0)) if np.isfinite(difference).all() else math.inf)
    decided = _decisions(next(iter(answers.values()))) if decide else golden.decision
    wrong = int((decided != golden.decision).sum()) if decided.shape == golden.decision.shape else len(golden.decision)
    return GoldenResult(examples=len(golden.decision), wrong_decisions=wrong, max_difference=largest, limit=limit)


def _decisions(first: NDArray[Any]) -> NDArray[np.int64]:
    decisions: NDArray[np.int64] = np.argmax(first.reshape(len(first), -1), axis=1).astype(np.int64)
    return decisions


def _arrays(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise BundleTooLarge(f"a golden file may hold {MAX_ENTRIES} arrays and {MAX_BYTES} bytes")
    arrays: dict[str, NDArray[Any]] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name in arrays or name == entry.filename:
            raise ArchiveError(f"the golden file holds {entry.filename!r}")
        with archive.open(entry) as file:
            arrays[name] = _array(file.read(MAX_BYTES))
    return arrays


def _array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array in version {version} of the npy format")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # NumPy evaluates the header as Python, which raises all kinds of errors
        raise ValueError(f"the header of an array: {type(error).__name__}: {error}") from error
    # Checked before numpy allocates what the header asks for.
    if dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"an array of {dtype} and shape {shape} does not fit its {len(data)} bytes")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
