from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import Bundled, Dataset, KerasSource, Outcome, run
from converters.engines import open_engine, variants
from converters.errors import CheckFailed, InvalidRequest, OutputFull, WrongNames
from converters.golden import _spread_rows, make_golden
from converters.reference import default_features, feature_references
from edge_runtime import golden
from edge_runtime.bundle import MAX_GOLDEN_TOLERANCE, ManifestError, TensorSpec, open_bundle, write_manifest
from edge_runtime.session import Session
from edge_runtime.telemetry.features import feature_cells, feature_values
from tests.unit.converters.conftest import DESCRIPTION, FEATURES, HYBRID, LABELS, Made, dataset, request_of


@pytest.fixture(scope="module")
def packed(outcome: Outcome) -> Bundled:
    assert outcome.bundle is not None
    return outcome.bundle


def test_the_bundle_opens_and_holds_every_artifact_with_its_evidence(packed: Bundled, outcome: Outcome) -> None:
    bundle = open_bundle(packed.path)
    assert bundle.manifest == packed.manifest
    assert bundle.sha256 == packed.sha256
    assert packed.path.name == "waves-1.bundle"
    manifest = bundle.manifest
    assert (manifest.created, manifest.labels, manifest.task) == ("2026-11-22T23:00:00Z", LABELS, "classification")
    assert manifest.inputs[0].unit == "g"
    assert manifest.hybrid == HYBRID
    assert manifest.guard is not None
    for artifact, row in zip(manifest.artifacts, outcome.report.artifacts, strict=True):
        assert artifact.sha256 == row.sha256
        assert artifact.measured.accuracy == pytest.approx(row.accuracy, abs=1e-6)
        assert artifact.measured.metric == "accuracy"
        assert artifact.float_operators == row.float_operators
        assert artifact.confidence is not None
        assert row.confidence is not None
        assert artifact.confidence.threshold == row.confidence.threshold
        assert artifact.confidence.target_risk == 0.05
        assert artifact.reference is not None
        assert sum(artifact.reference.classes) == pytest.approx(1, abs=1e-4)


def test_a_device_accepts_the_golden_examples_of_both_engines(packed: Bundled) -> None:
    bundle = open_bundle(packed.path)
    for artifact in bundle.manifest.artifacts:
        if artifact.target == "coreml":
            continue
        session = Session.load(bundle.manifest, artifact, bundle.read(artifact.file))
        result = golden.check(session, golden.read(bundle.read(artifact.golden.file)))
        assert result.passed, f"{artifact.file}: {result.detail}"
        assert result.examples >= 3


def test_a_device_refuses_the_golden_examples_of_another_model(packed: Bundled) -> None:
    bundle = open_bundle(packed.path)
    artifact = next(a for a in bundle.manifest.artifacts if a.target == "onnx" and a.precision == "fp32")
    examples = golden.read(bundle.read(artifact.golden.file))
    session = Session.load(bundle.manifest, artifact, bundle.read(artifact.file))
    shifted = replace(examples, outputs={"logits": examples.outputs["logits"] + 0.5})
    assert not golden.check(session, shifted).passed


def test_golden_examples_cover_the_classes_and_their_margin_is_beyond_the_tolerance(
    packed: Bundled, outcome: Outcome
) -> None:
    bundle = open_bundle(packed.path)
    for artifact in bundle.manifest.artifacts:
        examples = golden.read(bundle.read(artifact.golden.file))
        assert set(examples.decision.tolist()) == {0, 1, 2}
        logits = np.sort(examples.outputs["logits"], axis=1)
        assert (logits[:, -1] - logits[:, -2] > 2 * artifact.golden.tolerance).all()
        assert 0 < artifact.golden.tolerance <= MAX_GOLDEN_TOLERANCE
        assert (artifact.golden.tolerance < 0.01) == (artifact.precision == "fp32")
    for row in outcome.report.artifacts:
        assert row.golden_tolerance is not None
        assert row.golden_spread is not None
        assert 0 <= row.golden_spread < row.golden_tolerance / 3, "the tolerance allows four times what was seen"


def test_other_kernels_of_the_same_engine_stay_within_the_tolerance(packed: Bundled, source: KerasSource) -> None:
    bundle = open_bundle(packed.path)
    for artifact in bundle.manifest.artifacts:
        examples = golden.read(bundle.read(artifact.golden.file))
        for variant in variants():
            engine = open_engine(artifact.target, bundle.read(artifact.file), source.inputs, source.outputs, variant)
            logits = engine.run(examples.inputs)["logits"]
            assert np.abs(logits - examples.outputs["logits"]).max() <= artifact.golden.tolerance
            assert (logits.argmax(axis=1) == examples.decision).all()


def test_where_golden_examples_are_few_the_clearest_rows_are_taken() -> None:
    logits = np.zeros((40, 20))
    logits[np.arange(40), np.arange(40) % 20] = 0.1
    logits[[33, 18], [13, 18]] = 9.0
    assert _spread_rows(logits, 2).tolist() == [18, 33]


def test_a_model_that_never_decides_clearly_has_no_golden_examples(
    artifacts: dict[str, Made], source: KerasSource
) -> None:
    data = artifacts["onnx/int8"].path.read_bytes()
    with pytest.raises(CheckFailed, match="decided clearly enough"):
        make_golden("onnx", data, source.inputs, source.outputs, dataset(50, 2), decide=True, least=100.0)


def test_reference_shares_are_what_a_device_counts_on_training_data(packed: Bundled) -> None:
    training = dataset(600, 1)
    reference = packed.manifest.artifacts[0].reference
    assert reference is not None
    values = feature_values(reference.features, training.inputs)
    for column, feature in enumerate(reference.features):
        assert all(low < high for low, high in zip(feature.edges, feature.edges[1:], strict=False))
        counts = np.bincount(feature_cells(feature.edges, values[:, column]), minlength=19)
        np.testing.assert_allclose(feature.shares, counts / 600, atol=1e-5)
        assert max(feature.shares[1:17]) < 0.08, "quantile bins hold about a sixteenth each"


def test_a_feature_that_never_changes_still_has_ascending_edges(source: KerasSource) -> None:
    constant = {"window": np.full((50, 32, 3), 5000.0, np.float32)}
    (feature,) = feature_references(FEATURES[:1], source.inputs, constant)
    assert all(low < high for low, high in zip(feature.edges, feature.edges[1:], strict=False))
    assert sum(feature.shares) == pytest.approx(1)


def test_unless_told_otherwise_devices_count_columns_and_channels() -> None:
    table = TensorSpec(name="row", dtype="float32", shape=("batch", 3))
    image = TensorSpec(name="image", dtype="float32", shape=("batch", 8, 8, 2))
    first = TensorSpec(name="nchw", dtype="float32", shape=("batch", 3, 64, 64))
    found = [(each.name, each.reduce) for each in default_features((table, image, first))]
    assert found == [
        ("row[0]", "value"), ("row[1]", "value"), ("row[2]", "value"), ("image[0]", "mean"), ("image[1]", "mean"),
    ]  # fmt: skip


def test_segments_and_edge_cases_state_the_lowest_accuracy_of_any_artifact(
    packed: Bundled, artifacts: dict[str, Made], source: KerasSource
) -> None:
    evaluation = dataset(300, 2)
    segments = {segment.name: segment for segment in packed.manifest.segments}
    assert set(segments) == {"time first half", "time second half", *(f"label {name}" for name in LABELS)}
    assert segments["time first half"].rows == 150
    assert evaluation.labels is not None
    labels = evaluation.labels[:150]
    lowest = min(
        (
            open_engine(made.target, made.path.read_bytes(), source.inputs, source.outputs)
            .run(evaluation.inputs)["logits"][:150]
            .argmax(axis=1)
            == labels
        ).mean()
        for made in artifacts.values()
    )
    assert segments["time first half"].accuracy == pytest.approx(lowest, abs=1e-6)
    (loud,) = packed.manifest.edge_cases
    assert (loud.name, loud.rows) == ("loud", 60)


def test_the_card_answers_what_someone_asks_in_an_incident(packed: Bundled, outcome: Outcome) -> None:
    card = open_bundle(packed.path).read("card.md").decode()
    assert (outcome.out / "card.md").read_text() == card
    for words in (
        "How fast a wave is.",
        "ann@example.com",
        "waves of two frequencies at once",
        "synthetic waves",
        "| onnx int8 |",
        "| time first half | 150 |",
        "| loud | 60 |",
        "One of 3 classes: slow, medium, fast",
        "holds with probability 90%",
        packed.manifest.lineage.dataset_sha256,
        "Personal data: no",
        "Ranges are those seen in training, the training rows.",
        "it was fitted on training, the training rows.",
    ):
        assert words in card
    assert "skl2onnx" not in card, "only what this conversion used"


def test_rows_that_stand_in_for_those_of_training_are_named_on_the_card(source: KerasSource, tmp_path: Path) -> None:
    known: dict[str, Any] = {"targets": ("onnx",), "precisions": ("fp32",), "confidence": None}
    made = run(request_of(source, tmp_path / "out", **known))
    card = (made.out / "card.md").read_text()
    assert "Ranges are those seen in calibration, the calibration rows, since no training rows were given." in card
    assert "fitted on calibration, the calibration rows, since no" in card
    stated = replace(DESCRIPTION, ranges={"window": (-10.0, 10.0)})
    made = run(request_of(source, tmp_path / "stated", **known, description=stated))
    assert "Ranges are as stated by whoever released the model: window." in (made.out / "card.md").read_text()


def test_bad_descriptions_are_refused_by_name_and_write_nothing(source: KerasSource, tmp_path: Path) -> None:
    for changes, error, message in (
        ({"description": replace(DESCRIPTION, owner="")}, ManifestError, "owner"),
        ({"features": (replace(FEATURES[0], input="other"),)}, InvalidRequest, "not one of window"),
        ({"features": (replace(FEATURES[0], index=3),)}, InvalidRequest, "the last axis has 3"),
        ({"features": (replace(FEATURES[0], reduce="median"),)}, InvalidRequest, "reduce is one of"),
        ({"features": (FEATURES[0], FEATURES[0])}, InvalidRequest, "same name"),
        ({"training": Dataset(name="t", inputs={"x": np.zeros((9, 3))})}, WrongNames, "missing: window"),
    ):
        known: dict[str, Any] = {"targets": ("onnx",), "precisions": ("fp32",), "confidence": None}
        with pytest.raises(error, match=message):
            run(request_of(source, tmp_path / "out", **(known | changes)))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_the_bundle_is_written_leaves_nothing(
    source: KerasSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("converters.bundling.pack_release", full)
    with pytest.raises(OutputFull):
        run(request_of(source, tmp_path / "out", targets=("onnx",), precisions=("fp32",), confidence=None))
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_is_small_enough_to_poll(packed: Bundled) -> None:
    assert len(write_manifest(packed.manifest)) < 40_000
