from __future__ import annotations

import errno
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import ConvertedArtifact, Dataset, Description, FeatureSpec, Packaged, Report, pack
from converters.engines import open_engine, variants
from converters.errors import CheckFailed, InvalidRequest, OutputExists, OutputFull, WrongNames
from converters.golden import make_golden
from converters.reference import feature_references
from edge_runtime import golden
from edge_runtime.bundle import (
    MAX_GOLDEN_TOLERANCE,
    Hybrid,
    InvalidName,
    ManifestError,
    TensorSpec,
    open_bundle,
    write_manifest,
)
from edge_runtime.session import Session
from edge_runtime.telemetry.features import feature_cells, feature_values
from tests.unit.converters.conftest import LABELS, dataset

FEATURES = (
    FeatureSpec(name="mean-x", input="window", reduce="mean", index=0),
    FeatureSpec(name="std-y", input="window", reduce="std", index=1),
)
DESCRIPTION = Description(
    owner="Ann",
    contact="ann@example.com",
    version="1.2.0",
    predicts="How fast a wave is.",
    dataset="synthetic waves",
    known_failures=("waves of two frequencies at once",),
    personal_data=False,
    seeds=(7,),
    units={"window": "g"},
)
HYBRID = Hybrid(
    model="waves-cloud",
    releases=(1,),
    inputs=(TensorSpec(name="context", dtype="float32", shape=("n", 32, 3)),),
)


def request(report: Report, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "report": report,
        "model": "waves",
        "release": 1,
        "labels": LABELS,
        "description": DESCRIPTION,
        "training": dataset(600, 1, name="training"),
        "evaluation": dataset(300, 2, name="evaluation"),
        "created": datetime(2026, 11, 22, 23, 0, 0, tzinfo=UTC),
        "features": FEATURES,
        "hybrid": HYBRID,
        "segments": {"first half": np.arange(150), "slow": dataset(300, 2).labels == 0},
        "out": out,
    } | changes


@pytest.fixture(scope="module")
def packed(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    return pack(**request(report, tmp_path_factory.mktemp("packed")))


def test_the_bundle_opens_and_holds_every_artifact_with_its_evidence(packed: Packaged, report: Report) -> None:
    bundle = open_bundle(packed.path)
    assert bundle.manifest == packed.manifest
    assert bundle.sha256 == packed.sha256
    assert packed.path.name == "waves-1.bundle"
    manifest = bundle.manifest
    assert (manifest.created, manifest.labels) == ("2026-11-22T23:00:00Z", LABELS)
    assert manifest.inputs[0].unit == "g"
    assert manifest.hybrid == HYBRID
    for artifact, converted in zip(manifest.artifacts, report.artifacts, strict=True):
        assert bundle.read(artifact.file) == converted.path.read_bytes()
        assert artifact.measured.accuracy == converted.accuracy
        assert artifact.float_operators == converted.float_operators
        assert artifact.confidence is not None
        assert artifact.confidence.threshold == converted.threshold
        assert artifact.reference is not None
        assert sum(artifact.reference.classes) == pytest.approx(1, abs=1e-4)


def test_a_device_accepts_the_golden_examples_of_both_engines(packed: Packaged) -> None:
    bundle = open_bundle(packed.path)
    for artifact in bundle.manifest.artifacts:
        if artifact.target == "coreml":
            continue
        session = Session.load(bundle.manifest, artifact, bundle.read(artifact.file))
        result = golden.check(session, golden.read(bundle.read(artifact.golden.file)))
        assert result.passed, f"{artifact.file}: {result.detail}"
        assert result.examples >= 3


def test_a_device_refuses_the_golden_examples_of_another_model(packed: Packaged) -> None:
    bundle = open_bundle(packed.path)
    examples = {a.file: golden.read(bundle.read(a.golden.file)) for a in bundle.manifest.artifacts}
    artifact = next(a for a in bundle.manifest.artifacts if a.target == "onnx" and a.precision == "fp32")
    session = Session.load(bundle.manifest, artifact, bundle.read(artifact.file))
    shifted = replace(examples[artifact.file], outputs={"logits": examples[artifact.file].outputs["logits"] + 0.5})
    assert not golden.check(session, shifted).passed


def test_golden_examples_cover_the_classes_and_their_margin_is_beyond_the_tolerance(packed: Packaged) -> None:
    bundle = open_bundle(packed.path)
    for artifact in bundle.manifest.artifacts:
        examples = golden.read(bundle.read(artifact.golden.file))
        assert set(examples.decision.tolist()) == {0, 1, 2}
        logits = np.sort(examples.outputs["logits"], axis=1)
        assert (logits[:, -1] - logits[:, -2] > 2 * artifact.golden.tolerance).all()
        assert 0 < artifact.golden.tolerance <= MAX_GOLDEN_TOLERANCE
        assert (artifact.golden.tolerance < 0.01) == (artifact.precision == "fp32")


def test_other_kernels_of_the_same_engine_stay_within_the_tolerance(packed: Packaged, report: Report) -> None:
    bundle = open_bundle(packed.path)
    for artifact in bundle.manifest.artifacts:
        examples = golden.read(bundle.read(artifact.golden.file))
        for variant in variants():
            engine = open_engine(artifact.target, bundle.read(artifact.file), report.inputs, report.outputs, variant)
            logits = engine.run(examples.inputs)["logits"]
            assert np.abs(logits - examples.outputs["logits"]).max() <= artifact.golden.tolerance
            assert (logits.argmax(axis=1) == examples.decision).all()


def test_a_model_that_never_decides_clearly_has_no_golden_examples(
    report: Report, artifacts: dict[str, ConvertedArtifact]
) -> None:
    onnx = artifacts["onnx/int8"]
    unclear = replace(onnx, mean_abs_error=100.0)
    with pytest.raises(CheckFailed, match="decided clearly enough"):
        make_golden(unclear, onnx.path.read_bytes(), report.inputs, report.outputs, dataset(50, 2))


def test_reference_shares_are_what_a_device_counts_on_training_data(packed: Packaged) -> None:
    training = dataset(600, 1)
    reference = packed.manifest.artifacts[0].reference
    assert reference is not None
    values = feature_values(reference.features, training.inputs)
    for column, feature in enumerate(reference.features):
        assert all(low < high for low, high in zip(feature.edges, feature.edges[1:], strict=False))
        counts = np.bincount(feature_cells(feature.edges, values[:, column]), minlength=19)
        np.testing.assert_allclose(feature.shares, counts / 600, atol=1e-5)
        assert max(feature.shares[1:17]) < 0.08, "quantile bins hold about a sixteenth each"


def test_a_feature_that_never_changes_still_has_ascending_edges(report: Report) -> None:
    constant = {"window": np.full((50, 32, 3), 5000.0, np.float32)}
    (feature,) = feature_references(FEATURES[:1], report.inputs, constant)
    assert all(low < high for low, high in zip(feature.edges, feature.edges[1:], strict=False))
    assert sum(feature.shares) == pytest.approx(1)


def test_segments_state_the_lowest_accuracy_of_any_artifact(packed: Packaged, report: Report) -> None:
    evaluation = dataset(300, 2)
    segments = {segment.name: segment for segment in packed.manifest.segments}
    assert segments["first half"].rows == 150
    lowest = min(
        (
            open_engine(a.target, a.path.read_bytes(), report.inputs, report.outputs)
            .run(evaluation.inputs)["logits"][:150]
            .argmax(axis=1)
            == evaluation.labels[:150]  # type: ignore[index]
        ).mean()
        for a in report.artifacts
    )
    assert segments["first half"].accuracy == pytest.approx(lowest, abs=1e-6)


def test_the_card_answers_what_someone_asks_in_an_incident(packed: Packaged) -> None:
    card = open_bundle(packed.path).read("card.md").decode()
    for words in (
        "How fast a wave is.",
        "ann@example.com",
        "waves of two frequencies at once",
        "synthetic waves",
        "| onnx int8 |",
        "| first half | 150 |",
        packed.manifest.lineage.dataset_sha256,
        "Personal data: no",
    ):
        assert words in card


def test_the_same_release_packs_to_the_same_bytes(packed: Packaged, report: Report, tmp_path: Path) -> None:
    assert pack(**request(report, tmp_path)).sha256 == packed.sha256


def test_a_release_is_not_overwritten(packed: Packaged, report: Report) -> None:
    with pytest.raises(OutputExists, match="choose the next number"):
        pack(**request(report, packed.path.parent))


def test_an_artifact_that_changed_since_it_was_measured_is_refused(
    report: Report, artifacts: dict[str, ConvertedArtifact], tmp_path: Path
) -> None:
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(artifacts["onnx/fp32"].path.read_bytes() + b"\0")
    altered = replace(report, artifacts=(replace(artifacts["onnx/fp32"], path=changed),))
    with pytest.raises(CheckFailed, match="changed since it was converted"):
        pack(**request(altered, tmp_path / "out"))
    assert not (tmp_path / "out" / "waves-1.bundle").exists()


def test_bad_requests_are_refused_by_name_and_write_nothing(report: Report, tmp_path: Path) -> None:
    few = replace(report, artifacts=report.artifacts[:1])
    for changes, error, message in (
        ({"labels": LABELS[:2]}, InvalidRequest, "one logit for each of 2 labels"),
        ({"model": "Waves"}, InvalidName, "model name"),
        ({"release": 0}, InvalidName, "release number"),
        ({"description": replace(DESCRIPTION, owner="")}, ManifestError, "owner"),
        ({"features": (replace(FEATURES[0], input="other"),)}, InvalidRequest, "not one of window"),
        ({"features": (replace(FEATURES[0], index=3),)}, InvalidRequest, "the last axis has 3"),
        ({"features": (replace(FEATURES[0], reduce="median"),)}, InvalidRequest, "reduce is one of"),
        ({"features": (FEATURES[0], FEATURES[0])}, InvalidRequest, "same name"),
        ({"segments": {"none": np.zeros(300, bool)}}, InvalidRequest, "no evaluation row"),
        ({"training": Dataset(name="t", inputs={"x": np.zeros((9, 3))})}, WrongNames, "missing: window"),
        ({"report": replace(report, artifacts=())}, InvalidRequest, "no artifacts"),
    ):
        with pytest.raises(error, match=message):
            pack(**request(few, tmp_path) | changes)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_bundle(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **more: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("converters.package.pack_release", full)
    few = replace(report, artifacts=report.artifacts[:1])
    with pytest.raises(OutputFull):
        pack(**request(few, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_packed_manifest_is_small_enough_to_poll(packed: Packaged) -> None:
    assert len(write_manifest(packed.manifest)) < 20_000
