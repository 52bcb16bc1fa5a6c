"""The manifest: what a release is, as frozen data. FORMAT.md is normative; `reading` parses it, `writing` prints it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edge_runtime.bundle.guard import Guard, GuardPart
from edge_runtime.bundle.limits import CONFIDENCE_BINS, FEATURE_BINS

__all__ = [
    "CONFIDENCE_BINS",
    "FEATURE_BINS",
    "FORMAT_VERSION",
    "Artifact",
    "Confidence",
    "Feature",
    "FileRef",
    "Golden",
    "Guard",
    "GuardPart",
    "Hybrid",
    "KeptFloat",
    "Lineage",
    "Manifest",
    "Measurement",
    "Preprocessing",
    "Reference",
    "Requirements",
    "Segment",
    "TensorSpec",
]

FORMAT_VERSION = 1

Target = Literal["onnx", "tflite", "coreml"]
Precision = Literal["fp32", "fp16", "int8", "int8-dynamic", "int8-weights"]
Reduction = Literal["value", "mean", "std", "min", "max"]
Score = Literal["msp", "probability"]
Metric = Literal["accuracy", "r2"]
Task = Literal["classification", "regression", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file of the release: its name inside ``models/<model>/<release>/``, its size in bytes and its sha256 in hex."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output tensor.

    ``shape`` holds sizes and, for dynamic axes, names; a first axis named ``batch`` is the batch axis.
    ``range`` is the finite (lowest, highest) value seen in training, over the whole tensor, or None if not stated.
    ``dtype`` is a NumPy name: float32, float16, int8, uint8, int32, int64, bool.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    range: tuple[float, float] | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """What the graph does to raw input, what the caller must do, and raw-input examples that prove they agree."""

    in_graph: str
    caller: str
    examples: FileRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured for an artifact over ``rows`` held-out rows on ``machine``, with ``evaluated_with`` (engine and
    version). None = not measured.

    ``accuracy`` and ``source_accuracy`` (the model that was converted, on the same rows) are values of ``metric``: 0 to
    1, or R², which has no lower bound; a ``metric`` of None is not stated. ``latency_p50_us`` is the median in
    microseconds, ``latency_aa_ratio`` the ratio of two such medians of the same artifact: its distance from 1 is noise.
    ``decision_agreement`` (0 to 1) compares the decisions with the source's, ``max_abs_error`` every output.
    """

    accuracy: float | None
    rows: int
    latency_p50_us: float | None
    machine: str
    evaluated_with: str
    metric: Metric | None = None
    source_accuracy: float | None = None
    decision_agreement: float | None = None
    max_abs_error: float | None = None
    latency_aa_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How an artifact's outputs become a confidence, and when it is trusted.

    ``score`` is ``msp`` (maximum softmax probability of logits / ``temperature``) or, where the first output holds
    probabilities p, ``probability`` (the largest of p ** (1 / ``temperature``), normalized). An answer whose confidence
    is below ``threshold`` is deferred. ``calibration_sha256`` is the digest of the split that both were chosen on.

    With a ``target_risk``, at most that share of the trusted answers is wrong, with probability 1 - ``delta`` over the
    draw of that split; None = the threshold bounds no risk. ``coverage`` is the share trusted on the split; ``method``
    says how the threshold was chosen.
    """

    score: Score
    temperature: float
    threshold: float
    target_risk: float | None
    calibration_sha256: str
    delta: float | None = None
    coverage: float | None = None
    method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One telemetry feature: a scalar that the device computes from an input and counts in 19 fixed cells.

    ``reduce`` is applied over every axis but the last, at position ``index`` of the last axis (``value``: the single
    element there). ``edges`` are 17 ascending reference quantiles; ``shares`` are the 19 reference shares, in the
    order below, 16 bins, above, missing.
    """

    name: str
    input: str
    reduce: Reduction
    index: int
    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What telemetry looked like on training data: shares for features, predicted classes and 20 confidence bins."""

    features: tuple[Feature, ...]
    classes: tuple[float, ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A golden file (``.npz``: ``input:<name>``, ``output:<name>``, ``decision``; first axis = example) and the
    largest absolute difference allowed per output element."""

    file: str
    bytes: int
    sha256: str
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFloat:
    """A unit of the graph that was kept in float on purpose, and why."""

    unit: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file of a release for one engine. ``int8`` means static W8A8 with at least .9 of the Conv, Gemm and MatMul
    weight elements in INT8; what stayed float is listed in ``float_operators``, and what of it was chosen to stay, with
    the reason, in ``kept_float``."""

    target: Target
    precision: Precision
    file: str
    bytes: int
    sha256: str
    operators: tuple[str, ...]
    float_operators: tuple[str, ...]
    minimum_engine_version: str
    peak_memory_bytes: int | None
    measured: Measurement
    confidence: Confidence | None
    reference: Reference | None
    golden: Golden
    kept_float: tuple[KeptFloat, ...] = ()

    @property
    def kind(self) -> str:
        """Target and precision in one word, as telemetry names an artifact: ``onnx/int8``."""
        return f"{self.target}/{self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a device must have. Empty tuples and zero mean no requirement.

    ``arch`` as in ``platform.machine()``, ``os`` as in ``platform.system()`` in lower case.
    """

    arch: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    ram_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """The cloud model and the releases of it that may answer for this one, and the inputs that it takes. A caller
    who does not give them gets no cloud call."""

    model: str
    releases: tuple[int, ...]
    inputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where the model came from. ``packages`` maps a package to the version that trained or converted it; ``dvc`` is
    what the data's ``.dvc`` file says of it (hash and path); ``trained`` is when."""

    dataset: str
    dataset_sha256: str
    data_version: str | None
    collected: str | None
    personal_data: bool
    consent_purpose: str | None
    seeds: tuple[int, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    dvc: str | None = None
    trained: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Accuracy (0 to 1; R² for regression) on one named part of the held-out data, or on one named edge case."""

    name: str
    rows: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A release. ``critical`` names keys that a reader must know to use it; others it may ignore.

    ``task`` None means what `effective_task` says. ``edge_cases`` are cases that somebody named, ``segments`` parts of
    the held-out data; of several artifacts each holds the lowest accuracy.
    """

    format: int = FORMAT_VERSION
    critical: tuple[str, ...] = ()
    model: str
    release: int
    version: str
    created: str  # RFC 3339, UTC, as in 2026-11-22T23:00:00Z
    owner: str
    contact: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    artifacts: tuple[Artifact, ...]
    requirements: Requirements
    hybrid: Hybrid | None
    lineage: Lineage
    segments: tuple[Segment, ...] = ()
    card: FileRef | None = None
    task: Task | None = None
    edge_cases: tuple[Segment, ...] = ()
    guard: Guard | None = None

    @property
    def effective_task(self) -> Task:
        """``task``; where it is not stated, a model with labels classifies and nothing is known of another."""
        return self.task or ("classification" if self.labels else "other")
