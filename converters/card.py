"""The model card: what somebody needs at two in the morning. Plain Markdown, made from the manifest. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.bundle import Artifact, Manifest, Segment, TensorSpec

__all__ = ["model_card"]


def model_card(
    manifest: Manifest, *, predicts: str, known_failures: Sequence[str], retraining: str, source: str, parameters: int
) -> str:
    """Markdown for a release: what it predicts, inputs, performance, known failures, data, owner, retraining."""
    lineage = manifest.lineage
    lines = [
        f"# {manifest.model}, release {manifest.release} ({manifest.version})",
        "",
        predicts,
        "",
        f"- Owner: {manifest.owner}, {manifest.contact}",
        f"- Made: {manifest.created} from {source} ({parameters:,} parameters)",
        f"- Retraining: {retraining or 'not stated'}",
        "",
        "## Inputs and outputs",
        "",
        "| tensor | dtype | shape | range seen in training | unit |",
        "|---|---|---|---|---|",
        *(_tensor(spec) for spec in (*manifest.inputs, *manifest.outputs)),
        "",
        f"Labels: {', '.join(manifest.labels) or 'none'}",
        "",
        f"In the graph: {manifest.preprocessing.in_graph or 'nothing'}",
        "",
        f"The caller must: {manifest.preprocessing.caller or 'nothing'}",
        "",
        "## Performance",
        "",
        "On held-out rows; latency is the median of one example on the machine named below.",
        "",
        "| artifact | bytes | accuracy | rows | p50 | deferred below | left in float |",
        "|---|---|---|---|---|---|---|",
        *(_artifact(artifact) for artifact in manifest.artifacts),
        "",
        *_machines(manifest.artifacts),
        "",
        "## Performance by segment",
        "",
        *(_segments(manifest.segments) or ["No segments were measured."]),
        "",
        "## Known failures",
        "",
        *([f"- {failure}" for failure in known_failures] or ["None recorded. That is not the same as none."]),
        "",
        "## Training data",
        "",
        f"- {lineage.dataset}, version {lineage.data_version or 'not stated'}, sha256 `{lineage.dataset_sha256}`",
        f"- Collected: {lineage.collected or 'not stated'}",
        f"- Personal data: {'yes' if lineage.personal_data else 'no'}"
        + (f"; consent: {lineage.consent_purpose}" if lineage.consent_purpose else ""),
        f"- Seeds: {', '.join(str(seed) for seed in lineage.seeds) or 'not stated'}",
        f"- Packages: {', '.join(f'{name} {version}' for name, version in sorted(lineage.packages.items()))}",
        "",
    ]
    return "\n".join(lines)


def _tensor(spec: TensorSpec) -> str:
    spread = "not stated" if spec.range is None else f"{spec.range[0]:g} to {spec.range[1]:g}"
    shape = " × ".join(str(size) for size in spec.shape)
    return f"| {spec.name} | {spec.dtype} | {shape} | {spread} | {spec.unit or ''} |"


def _artifact(artifact: Artifact) -> str:
    measured = artifact.measured
    accuracy = "not measured" if measured.accuracy is None else f"{measured.accuracy:.4f}"
    p50 = "not measured" if measured.latency_p50_us is None else f"{measured.latency_p50_us:.0f} µs"
    deferred = "never" if artifact.confidence is None else f"{artifact.confidence.threshold:.3f}"
    return (
        f"| {artifact.target} {artifact.precision} | {artifact.bytes:,} | {accuracy} | {measured.rows:,} | {p50} "
        f"| {deferred} | {', '.join(artifact.float_operators)} |"
    )


def _machines(artifacts: Sequence[Artifact]) -> list[str]:
    seen = dict.fromkeys((artifact.measured.evaluated_with, artifact.measured.machine) for artifact in artifacts)
    return [f"- {engine}, on {machine}" for engine, machine in seen]


def _segments(segments: Sequence[Segment]) -> list[str]:
    if not segments:
        return []
    return [
        "The lowest accuracy of any artifact.",
        "",
        "| segment | rows | accuracy |",
        "|---|---|---|",
        *(f"| {segment.name} | {segment.rows:,} | {segment.accuracy:.4f} |" for segment in segments),
    ]
