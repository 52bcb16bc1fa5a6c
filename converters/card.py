"""The model card: what somebody needs at two in the morning. Plain Markdown, made from the manifest. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.report import Row
from converters.request import NOT_STATED, Description
from converters.stages.sources import SourceInfo
from converters.task import Task
from edge_runtime.bundle import Artifact, Confidence, Manifest, Segment, TensorSpec

__all__ = ["ReferenceRows", "model_card"]

MEANING = {
    "classification": "One of {classes} classes: {labels}. The first output holds one {number} a class; the largest "
    "decides.",
    "binary": "Yes or no: the first output is one number, and above {border:g} it says yes.",
    "regression": "Numbers: the first output, as it is.",
    "detection": "Probabilities for many places or moments at once; above one half, one says yes.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRows:
    """The data set, by its split and its file's name, that ranges, guard and telemetry reference come from."""

    split: str
    name: str

    def __str__(self) -> str:
        """As text: other rows than those of training are said to stand in for them."""
        stand_in = "" if self.split == "training" else ", since no training rows were given"
        return f"{self.name}, the {self.split} rows{stand_in}"


def model_card(
    manifest: Manifest,
    description: Description,
    *,
    source: SourceInfo,
    task: Task,
    rows: Sequence[Row],
    reference: ReferenceRows,
) -> str:
    """Markdown for a release: what it predicts, inputs, performance, known failures, data, owner, retraining."""
    lines = [
        f"# {manifest.model}, release {manifest.release} ({manifest.version})",
        "",
        description.predicts or f"What it predicts: {NOT_STATED}.",
        "",
        f"- Owner: {manifest.owner}",
        f"- Contact: {manifest.contact}",
        f"- Made: {manifest.created} from {source.name} ({source.kind}, {source.parameters:,} parameters)",
        f"- Retraining: {description.retraining or NOT_STATED}",
        "",
        "## What an answer means",
        "",
        MEANING[task.kind].format(
            classes=task.classes,
            labels=", ".join(manifest.labels),
            number="probability" if task.probabilities else "logit",
            border=task.border,
        ),
        "",
        *_confidence(manifest.artifacts),
        "",
        "## Inputs and outputs",
        "",
        "| tensor | dtype | shape | range | unit |",
        "|---|---|---|---|---|",
        *(_tensor(spec) for spec in (*manifest.inputs, *manifest.outputs)),
        "",
        *_ranges(manifest, description, reference),
        "",
        f"In the graph: {manifest.preprocessing.in_graph or NOT_STATED}",
        "",
        f"The caller must: {manifest.preprocessing.caller or NOT_STATED}",
        "",
        *_guard(manifest, reference),
        "",
        "## Performance",
        "",
        "On held-out rows, beside the model that it was made of. Latency is the median of one example on the machine "
        "named below, not on a device.",
        "",
        "| artifact | bytes | accuracy | source | agreement | rows | p50 | memory |",
        "|---|---|---|---|---|---|---|---|",
        *(_artifact(artifact) for artifact in manifest.artifacts),
        "",
        *_machines(manifest.artifacts),
        "",
        *_kept(rows),
        "## Performance by segment",
        "",
        *(_segments(manifest.segments) or ["No segments were measured."]),
        "",
        "## Edge cases",
        "",
        *(_segments(manifest.edge_cases) or ["None were named. That is not the same as none."]),
        "",
        "## Known failures",
        "",
        *_failures(manifest, description),
        "",
        "## Training data",
        "",
        *_data(manifest, description, reference),
        "",
    ]
    return "\n".join(lines)


def _confidence(artifacts: Sequence[Artifact]) -> list[str]:
    known = [artifact for artifact in artifacts if artifact.confidence is not None]
    if not known:
        return ["No confidence threshold was chosen: every answer counts as trusted, however doubtful."]
    lines = [
        "| artifact | temperature | deferred below | answers trusted | of those wrong, at most |",
        "|---|---|---|---|---|",
    ]
    for artifact in known:
        assert artifact.confidence is not None
        lines.append(_chosen(artifact, artifact.confidence))
    return lines


def _chosen(artifact: Artifact, confidence: Confidence) -> str:
    risk = "not bounded" if confidence.target_risk is None else f"{confidence.target_risk:.1%}"
    if confidence.target_risk is not None and confidence.delta is not None:
        risk += f" (holds with probability {1 - confidence.delta:.0%})"
    coverage = "" if confidence.coverage is None else f"{confidence.coverage:.1%}"
    return (
        f"| {artifact.target} {artifact.precision} | {confidence.temperature:.3f} | {confidence.threshold:.3f} "
        f"| {coverage} | {risk} |"
    )


def _tensor(spec: TensorSpec) -> str:
    spread = NOT_STATED if spec.range is None else f"{spec.range[0]:g} to {spec.range[1]:g}"
    shape = " × ".join(str(size) for size in spec.shape)
    return f"| {spec.name} | {spec.dtype} | {shape} | {spread} | {spec.unit or ''} |"


def _ranges(manifest: Manifest, description: Description, reference: ReferenceRows) -> list[str]:
    """Where the table's ranges come from."""
    named = ", ".join(sorted(description.ranges))
    if all(spec.range is None or spec.name in description.ranges for spec in manifest.inputs):
        return [f"Ranges are as stated by whoever released the model: {named}."] if named else []
    return [f"Ranges are those seen in {reference}" + (f"; stated, and not seen: {named}." if named else ".")]


def _guard(manifest: Manifest, reference: ReferenceRows) -> list[str]:
    if manifest.guard is None:
        return ["No input guard: nothing tells inputs of a kind that training never saw."]
    return [
        f"An input guard scores how unlike known data an input is (docs/spec/guard.md); it was fitted on {reference}. "
        "Its threshold is in the manifest."
    ]


def _artifact(artifact: Artifact) -> str:
    measured = artifact.measured
    p50 = "not measured" if measured.latency_p50_us is None else f"{measured.latency_p50_us:.0f} µs"
    memory = "not measured" if artifact.peak_memory_bytes is None else f"{artifact.peak_memory_bytes / 2**20:.1f} MiB"
    return (
        f"| {artifact.target} {artifact.precision} | {artifact.bytes:,} | {_share(measured.accuracy, measured.metric)} "
        f"| {_share(measured.source_accuracy, measured.metric)} | {_share(measured.decision_agreement, None)} "
        f"| {measured.rows:,} | {p50} | {memory} |"
    )


def _share(value: float | None, metric: str | None) -> str:
    if value is None:
        return "no labels"
    return f"R² {value:.4f}" if metric == "r2" else f"{value:.4f}"


def _machines(artifacts: Sequence[Artifact]) -> list[str]:
    seen = dict.fromkeys((artifact.measured.evaluated_with, artifact.measured.machine) for artifact in artifacts)
    return [f"- {engine}, on {machine}" for engine, machine in seen]


def _kept(rows: Sequence[Row]) -> list[str]:
    """What of a quantized artifact computes in float, and why."""
    lines = []
    for row in rows:
        if row.precision == "fp32":
            continue
        lines.append(f"- {row.target} {row.precision}: in float {', '.join(row.float_operators) or 'nothing'}.")
        lines += [f"  - {each.unit}: {each.reason}" for each in row.kept_float]
        if row.reason:
            lines.append(f"  - {row.reason}")
    return ["## What is not in INT8", "", *lines, ""] if lines else []


def _segments(segments: Sequence[Segment]) -> list[str]:
    if not segments:
        return []
    worst = sorted(segments, key=lambda segment: segment.accuracy)
    return [
        "The lowest accuracy of any artifact, the worst first.",
        "",
        "| what | rows | accuracy |",
        "|---|---|---|",
        *(f"| {segment.name} | {segment.rows:,} | {segment.accuracy:.4f} |" for segment in worst),
    ]


def _failures(manifest: Manifest, description: Description) -> list[str]:
    lines = [f"- {failure}" for failure in description.known_failures]
    rated = [artifact.measured.accuracy for artifact in manifest.artifacts if artifact.measured.accuracy is not None]
    if rated:
        weak = [each for each in manifest.segments if each.rows >= 10 and each.accuracy < min(rated) - 0.05]
        lines += [f"- measured: weak on {each.name} ({each.accuracy:.4f} of {each.rows:,} rows)" for each in weak]
    return lines or ["None recorded. That is not the same as none."]


def _data(manifest: Manifest, description: Description, reference: ReferenceRows) -> list[str]:
    lineage = manifest.lineage
    consent = f"; consent: {lineage.consent_purpose}" if lineage.consent_purpose else ""
    personal = {True: "yes", False: "no", None: f"{NOT_STATED}, so treated as yes"}[description.personal_data]
    return [
        f"- {lineage.dataset}, version {lineage.data_version or NOT_STATED}",
        f"- sha256 `{lineage.dataset_sha256}` of {reference}",
        *([f"- DVC: {lineage.dvc}"] if lineage.dvc else []),
        f"- Collected: {lineage.collected or NOT_STATED}",
        f"- Trained: {lineage.trained or NOT_STATED}",
        f"- Personal data: {personal}{consent}",
        f"- Seeds: {', '.join(str(seed) for seed in lineage.seeds) or NOT_STATED}",
        f"- Made with: {', '.join(f'{name} {version}' for name, version in lineage.packages.items())}",
    ]
