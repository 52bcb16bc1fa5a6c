from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge_runtime.bundle import (
    FileRef,
    Manifest,
    ManifestError,
    Preprocessing,
    TensorSpec,
    UnsupportedFormat,
    class_cells,
    manifest_files,
    read_manifest,
    write_manifest,
)
from tests.support import bundles

Change = Callable[[dict[str, Any]], object]


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def refusal(change: Change) -> ManifestError:
    document = bundles.document()
    change(document)
    with pytest.raises(ManifestError) as caught:
        read_manifest(encode(document))
    return caught.value


def accepted(change: Change) -> Manifest:
    document = bundles.document()
    change(document)
    return read_manifest(encode(document))


def test_what_was_written_is_read_back() -> None:
    manifest = bundles.manifest()
    data = write_manifest(manifest)
    assert read_manifest(data) == manifest
    assert write_manifest(read_manifest(data)) == data


def test_the_written_form_is_canonical() -> None:
    data = write_manifest(bundles.manifest())
    assert data.endswith(b"}\n")
    expected = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert data.decode() == expected


def test_optional_keys_may_be_missing() -> None:
    def change(document: dict[str, Any]) -> None:
        for key in ("critical", "hybrid", "segments", "card", "task", "edge_cases", "guard"):
            del document[key]
        del document["preprocessing"]["examples"]
        for key in ("operators", "float_operators", "peak_memory_bytes", "confidence", "reference", "kept_float"):
            del document["artifacts"][0][key]
        document["requirements"] = {}
        for key in ("data_version", "collected", "consent_purpose", "seeds", "packages", "dvc", "trained"):
            del document["lineage"][key]
        for key in ("metric", "source_accuracy", "decision_agreement", "max_abs_error", "latency_aa_ratio"):
            del document["artifacts"][0]["measured"][key]

    manifest = accepted(change)
    assert manifest.critical == ()
    assert manifest.requirements.ram_bytes == 0
    assert manifest.artifacts[0].reference is None
    assert manifest.lineage.packages == {}
    assert (manifest.task, manifest.effective_task, manifest.guard) == (None, "classification", None)
    assert manifest.artifacts[0].measured.metric is None


def test_a_confidence_that_states_no_bound_is_read() -> None:
    def change(document: dict[str, Any]) -> None:
        for key in ("target_risk", "delta", "coverage", "method"):
            del document["artifacts"][0]["confidence"][key]

    confidence = accepted(change).artifacts[0].confidence
    assert confidence is not None
    assert (confidence.target_risk, confidence.delta, confidence.method) == (None, None, None)


def test_unknown_keys_are_ignored_at_every_depth() -> None:
    def change(document: dict[str, Any]) -> None:
        document["licence"] = {"name": "x"}
        document["artifacts"][0]["sparsity"] = [0.5]
        document["artifacts"][0]["reference"]["features"][0]["weight"] = 1

    assert accepted(change) == bundles.manifest()


@pytest.mark.parametrize(
    "name", ["licence", "artifacts.sparsity", "artifacts.golden.hash", "artifact", "lineage.packages.keras"]
)
def test_a_critical_key_that_this_reader_does_not_know_is_refused(name: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["critical"] = ["labels", name]
        document["licence"] = {}

    document = bundles.document()
    change(document)
    with pytest.raises(UnsupportedFormat, match="update") as caught:
        read_manifest(encode(document))
    assert caught.value.key_path == "critical[1]"


@pytest.mark.parametrize("name", ["labels", "artifacts.golden.tolerance", "hybrid.inputs.range", "card.sha256"])
def test_a_critical_key_that_this_reader_knows_is_fine(name: str) -> None:
    assert accepted(lambda d: d.update(critical=[name])).critical == (name,)


def test_a_newer_format_is_refused_before_anything_else_is_looked_at() -> None:
    with pytest.raises(UnsupportedFormat, match="update the runtime") as caught:
        read_manifest(b'{"format":2,"critical":7}')
    assert caught.value.key_path == "format"


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None])
def test_the_format_is_a_positive_whole_number(value: object) -> None:
    assert refusal(lambda d: d.update(format=value)).key_path == "format"


def test_every_required_key_is_missed_by_its_path() -> None:
    for path in [
        *("format", "model", "release", "version", "created", "owner", "contact", "inputs", "outputs", "labels"),
        *("preprocessing", "artifacts", "requirements", "lineage"),
        *(f"inputs[0].{k}" for k in ("name", "dtype", "shape")),
        *(f"preprocessing.{k}" for k in ("in_graph", "caller")),
        *(f"preprocessing.examples.{k}" for k in ("file", "bytes", "sha256")),
        *(f"artifacts[0].{k}" for k in ("target", "precision", "file", "bytes", "sha256", "minimum_engine_version")),
        *(f"artifacts[0].{k}" for k in ("measured", "golden")),
        *(f"artifacts[0].measured.{k}" for k in ("rows", "machine", "evaluated_with")),
        *(f"artifacts[0].confidence.{k}" for k in ("score", "temperature", "threshold", "calibration_sha256")),
        *(f"artifacts[0].reference.{k}" for k in ("features", "classes", "confidence")),
        *(f"artifacts[0].reference.features[0].{k}" for k in ("name", "input", "reduce", "index", "edges", "shares")),
        *(f"artifacts[0].golden.{k}" for k in ("file", "bytes", "sha256", "tolerance")),
        *(f"hybrid.{k}" for k in ("model", "releases", "inputs")),
        *(f"lineage.{k}" for k in ("dataset", "dataset_sha256", "personal_data")),
        *(f"{s}[0].{k}" for s in ("segments", "edge_cases") for k in ("name", "rows", "accuracy")),
        *(f"artifacts[0].kept_float[0].{k}" for k in ("unit", "reason")),
        *(f"guard.{k}" for k in ("score", "parts", "center", "scale", "directions", "variances", "residual")),
        *(f"guard.{k}" for k in ("threshold", "false_refusal", "rows", "data_sha256")),
        *(f"guard.parts[0].{k}" for k in ("input", "reduce")),
    ]:
        error = refusal(lambda d, p=path: bundles.remove(d, p))  # type: ignore[misc]
        assert error.key_path == path
        assert str(error) == f"{path}: is missing"


REFUSED: list[tuple[str, object]] = [
    *(("model", v) for v in ("", "Exercise", "../x", "x" * 65, "nul", 7, None, "ex\u0435rcise")),
    *(("release", v) for v in (0, -1, 2**31, 2**53, True, 1.0, "2")),
    *(("version", v) for v in ("", "x" * 65, 2, "1\n", "\x1b[2J")),
    *(("created", v) for v in ("", "2026-11-22", "2026-11-22T23:00:00", "2026-11-22T23:00:00+00:00")),
    *(("created", v) for v in ("2026-11-22t23:00:00z", "2026-02-30T00:00:00Z", "2026-11-22T24:00:00Z")),
    *(
        ("created", v)
        for v in ("2026-11-22T23:00:60Z", "2026-11-22T23:00:00.5Z", "0000-01-01T00:00:00Z", 1_700_000_000)
    ),
    *(("owner", v) for v in ("", "x" * 257, "a\u202eb", "a\nb")),
    *(("inputs", v) for v in ([], {}, None)),
    ("labels[1]", ""),
    ("labels[1]", "x" * 129),
    *(("inputs[0].dtype", v) for v in ("float64", "Float32", "<f4", "object", "", 1)),
    *(("inputs[0].name", v) for v in ("", "a b", "x" * 129, "naïve", "a\\b")),
    *(("inputs[0].shape[1]", v) for v in (0, -1, 1.0, True, None, "", "1a", "a-b", "x" * 33, 2**53)),
    ("inputs[0].shape", [1] * 9),
    ("inputs[0].shape", [2**20, 2**20]),
    ("inputs[0].shape", ["time", "batch"]),
    ("inputs[0].shape", ["batch", "batch"]),
    *(("inputs[0].range", v) for v in ([1.0], [1, 2, 3], [2, 1], 5, [None, 1], ["0", 1], [False, True])),
    *(("inputs[0].unit", v) for v in ("", "x" * 65, 1)),
    *(("artifacts[0].target", v) for v in ("ONNX", "tensorrt", "", None)),
    *(("artifacts[0].precision", v) for v in ("int4", "float32", "")),
    *(("artifacts[0].file", v) for v in ("../m.onnx", "/m.onnx", "a/b", "a\\b", ".hidden", "con.onnx", "m.onnx.", "")),
    *(("artifacts[0].file", v) for v in ("manifest.json", "Release.json", "POLICY.JSON")),
    *(("artifacts[0].bytes", v) for v in (0, -1, 2**31 + 1, True, 7.0, "7")),
    *(("artifacts[0].sha256", v) for v in ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", 0)),
    ("artifacts[0].operators[0]", "a b"),
    ("artifacts[0].operators[1]", "Conv"),  # twice
    *(("artifacts[0].minimum_engine_version", v) for v in ("", "1.", ".1", "v1", "1.2.3.4.5", "1-2", "1234567", 1.22)),
    *(("artifacts[0].peak_memory_bytes", v) for v in (-1, 1.5, 2**53)),
    *(("artifacts[0].measured.accuracy", v) for v in (-0.01, 1.01, "0.9", True)),
    *(("artifacts[0].measured.rows", v) for v in (-1, 0.5, None)),
    *(("artifacts[0].measured.latency_p50_us", v) for v in (-1, "1")),
    *(("artifacts[0].measured.metric", v) for v in ("f1", "", 1)),
    ("artifacts[0].measured.metric", "r2"),  # of a classifier
    *(("artifacts[0].measured.source_accuracy", v) for v in (-0.01, 1.01, "0.9")),
    *(("artifacts[0].measured.decision_agreement", v) for v in (-0.01, 1.01)),
    *(("artifacts[0].measured.max_abs_error", v) for v in (-1, "1")),
    *(("artifacts[0].measured.latency_aa_ratio", v) for v in (-1, True)),
    *(("artifacts[0].kept_float[0].unit", v) for v in ("", "x" * 257, None)),
    *(("artifacts[0].kept_float[0].reason", v) for v in ("", "x" * 513, "a\nb")),
    ("artifacts[0].kept_float", [{"unit": "stem", "reason": "a"}, {"unit": "stem", "reason": "b"}]),
    *(("artifacts[0].confidence.delta", v) for v in (-0.1, 1.1, "0.1")),
    *(("artifacts[0].confidence.coverage", v) for v in (-0.1, 1.1)),
    *(("artifacts[0].confidence.method", v) for v in ("", "x" * 513, 1)),
    *(("task", v) for v in ("regression", "classify", "", 1)),
    *(("edge_cases[0].accuracy", v) for v in (1.1, -0.1, None)),
    *(("guard.score", v) for v in ("knn", "", None)),
    *(("guard.parts", v) for v in ([], None, [{"input": "window", "reduce": ["mean"]}] * 65)),
    *(("guard.parts[0].input", v) for v in ("other", "", None)),
    *(("guard.parts[0].reduce", v) for v in ([], ["median"], ["mean", "mean"], ["mean", "log_std", "value"], None)),
    *(("guard.parts[0].axis", v) for v in (-1, 2, 8, 0.0)),
    *(("guard.parts[0].stride", v) for v in (0, 2**28 + 1, 1.0)),
    *(("guard.center", v) for v in ([], [0.0] * 2, [0.0] * 65)),
    *(("guard.scale", v) for v in ([1.0] * 2, [1.0, 0.0, 1.0], [1.0, -1.0, 1.0])),
    *(("guard.directions", v) for v in ([[1.0]], [[]], [[0.6, 0.8, 0.0]] * 9)),
    *(("guard.variances", v) for v in ([], [0.0], [-1.0], [1.0, 1.0])),
    *(("guard.residual", v) for v in (0, -1, None)),
    *(("guard.threshold", v) for v in (-1, None)),
    *(("guard.false_refusal", v) for v in (-0.1, 1.1)),
    ("guard.data_sha256", "0"),
    *(("artifacts[0].confidence.score", v) for v in ("entropy", "", None)),
    *(("artifacts[0].confidence.temperature", v) for v in (0, -1, 1000.5, None, "1", True)),
    *(("artifacts[0].confidence.threshold", v) for v in (-0.1, 1.1, None)),
    *(("artifacts[0].reference.features[0].edges", v) for v in ([], list(range(16)), list(range(18)), None)),
    *(("artifacts[0].reference.features[0].shares", v) for v in ([], [1 / 17] * 17, [1 / 20] * 20)),
    *(("artifacts[0].reference.features[0].reduce", v) for v in ("median", "", None)),
    *(("artifacts[0].reference.features[0].index", v) for v in (-1, 6, 2**28, 1.0, None)),
    *(("artifacts[0].reference.features[0].input", v) for v in ("logits", "other", "")),
    ("artifacts[0].reference.features[0].reduce", "value"),  # 100 elements at that index
    ("artifacts[0].reference.features[0].shares", [0.99, *[0] * 18]),
    ("artifacts[0].reference.features[0].shares", [1.01, *[0] * 18]),
    ("artifacts[0].reference.features[0].shares[0]", -0.1),
    ("artifacts[0].reference.classes", [0.5, 0.5]),
    ("artifacts[0].reference.classes", [0.25] * 4),
    ("artifacts[0].reference.classes", [0.5, 0.25, 0.2]),
    ("artifacts[0].reference.confidence", [0.1] * 10),
    ("artifacts[0].reference.confidence", [0.04] * 20),
    *(("artifacts[0].golden.tolerance", v) for v in (-1e-9, 4.000001, 1e9, None, "0.1", True)),
    *(("artifacts[0].golden.file", v) for v in ("model-fp32.onnx", "MODEL-fp32.onnx")),
    *(("requirements.arch", v) for v in ("x86_64", ["a"] * 33, [1])),
    ("requirements.arch[1]", "x86_64"),
    *(("requirements.ram_bytes", v) for v in (-1, 0.5)),
    *(("hybrid.model", v) for v in ("", "A", "a/b")),
    *(("hybrid.releases", v) for v in ([], [0], [1] * 65)),
    ("hybrid.inputs", []),
    ("hybrid.inputs[1].name", "context"),  # twice
    ("hybrid.inputs[1].dtype", "float16"),  # not the model's own input of that name
    ("hybrid.inputs[1].shape", ["batch", 100, 7]),
    *(("lineage.personal_data", v) for v in (0, 1, "true", None)),
    ("lineage.seeds", [-1]),
    ("lineage.packages", {"a b": "1"}),
    ("lineage.packages", {"a": ""}),
    ("lineage.packages", {"a": None}),
    ("lineage.packages", ["a"]),
    *(("segments[0].accuracy", v) for v in (1.1, -1, None)),
    *(("card.file", v) for v in ("model-fp32.onnx", "Model-FP32.onnx.golden.npz", "EXAMPLES.npz")),
    ("card.sha256", "0" * 63),
]


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=lambda v: repr(v)[:40])
def test_a_value_outside_the_format_is_refused_at_its_key_path(path: str, value: object) -> None:
    error = refusal(lambda d: bundles.put(d, path, value))
    assert error.key_path
    assert str(error).startswith(f"{error.key_path}: ")
    assert error.key_path.startswith(path) or path.startswith(error.key_path)


ACCEPTED: list[tuple[str, object]] = [
    ("release", 2**31 - 1),
    ("created", "2024-02-29T00:00:00Z"),
    ("inputs[0].range", [0, 0]),
    ("inputs[0].range", None),
    ("artifacts[0].bytes", 2**31),
    ("artifacts[0].golden.tolerance", 0),
    ("artifacts[0].golden.tolerance", 4),
    ("artifacts[0].confidence.threshold", 0),
    ("artifacts[0].confidence.threshold", 1),
    ("artifacts[0].confidence.temperature", 1000),
    ("artifacts[0].reference.features[0].shares", [0.9995, *[0] * 18]),
    ("artifacts[0].reference.features[0].index", 0),
    ("artifacts[0].minimum_engine_version", "0"),
    ("artifacts[0].peak_memory_bytes", 2**53 - 1),
    ("preprocessing.caller", "line\nline"),
    ("requirements.arch", []),
    ("hybrid.inputs[1].range", None),  # a range is what was seen, not what is taken
    ("artifacts[0].confidence.score", "probability"),
    ("task", "other"),
    ("guard.directions[0]", [-1e300, 0, 1e300]),
    ("guard.scale", [5e-324, 1, 1]),
    ("guard.parts[0].stride", 2**28),
]


@pytest.mark.parametrize(("path", "value"), ACCEPTED, ids=lambda v: repr(v)[:40])
def test_a_value_at_the_edge_of_the_format_is_read(path: str, value: object) -> None:
    accepted(lambda d: bundles.put(d, path, value))


def test_two_inputs_outputs_or_segments_of_one_name_are_refused() -> None:
    for key in ("inputs", "outputs", "segments", "edge_cases"):
        error = refusal(lambda d, k=key: d[k].append(d[k][0]))  # type: ignore[misc]
        assert error.key_path == f"{key}[1].name"


def test_two_equal_labels_are_refused() -> None:
    assert refusal(lambda d: bundles.put(d, "labels[2]", "raise")).key_path == "labels[2]"


def test_two_features_of_one_name_are_refused() -> None:
    def change(document: dict[str, Any]) -> None:
        features = document["artifacts"][0]["reference"]["features"]
        features.append(dict(features[0], index=1))

    assert refusal(change).key_path == "artifacts[0].reference.features[1].name"


def test_two_artifacts_for_one_target_and_precision_are_refused() -> None:
    def change(document: dict[str, Any]) -> None:
        second = json.loads(json.dumps(document["artifacts"][0]))
        second["file"] = "other.onnx"
        second["golden"]["file"] = "other.onnx.golden.npz"
        document["artifacts"].append(second)

    assert refusal(change).key_path == "artifacts[1]"
    assert "a second artifact for onnx fp32" in str(refusal(change))


def test_edges_must_strictly_ascend() -> None:
    for i, value in ((3, -1.0), (3, -0.75), (16, 0.875)):  # lower, equal, equal
        error = refusal(lambda d, i=i, v=value: bundles.put(d, f"artifacts[0].reference.features[0].edges[{i}]", v))  # type: ignore[misc]
        assert "ascend" in str(error)


def test_only_regression_has_r2_and_only_r2_is_below_zero() -> None:
    def change(document: dict[str, Any], task: str | None, metric: str | None) -> None:
        document.update(labels=[], task=task)
        document["artifacts"][0].update(confidence=None, reference=None)
        document["artifacts"][0]["measured"].update(metric=metric, accuracy=-3.5, source_accuracy=-1)
        document["segments"][0]["accuracy"] = document["edge_cases"][0]["accuracy"] = -2

    manifest = accepted(lambda d: change(d, "regression", "r2"))
    assert (manifest.artifacts[0].measured.accuracy, manifest.segments[0].accuracy) == (-3.5, -2.0)
    measured = "artifacts[0].measured"
    assert refusal(lambda d: change(d, "regression", None)).key_path == f"{measured}.accuracy"
    assert refusal(lambda d: change(d, "other", "r2")).key_path == "segments[0].accuracy"

    def flat(document: dict[str, Any]) -> None:
        change(document, "other", "r2")
        document["segments"] = document["edge_cases"] = []

    assert refusal(flat).key_path == f"{measured}.metric"


def test_a_task_agrees_with_the_labels_and_is_known_where_it_is_not_stated() -> None:
    def unlabelled(document: dict[str, Any]) -> None:
        document.update(labels=[], task=None)
        document["artifacts"][0].update(confidence=None, reference=None)

    assert accepted(unlabelled).effective_task == "other"
    assert accepted(lambda d: (unlabelled(d), d.update(task="regression"))).effective_task == "regression"
    assert refusal(lambda d: (unlabelled(d), d.update(task="classification"))).key_path == "task"
    assert accepted(lambda d: d.update(task=None)).effective_task == "classification"
    assert refusal(lambda d: d.update(task="regression")).key_path == "task"


def test_the_summaries_of_a_guard_are_counted() -> None:
    def change(document: dict[str, Any], n: int, **part: object) -> None:
        document["guard"].update(
            parts=[{"input": "window", **part}], center=[0] * n, scale=[1] * n, directions=[], variances=[]
        )

    accepted(lambda d: change(d, 12, reduce=["min", "max"], axis=1))
    assert refusal(lambda d: change(d, 11, reduce=["min", "max"], axis=1)).key_path == "guard.center"
    accepted(lambda d: change(d, 60, reduce=["value"], stride=10))
    accepted(lambda d: change(d, 9, reduce=["value"], stride=70))  # 600 / 70, rounded up
    assert refusal(lambda d: change(d, 1, reduce=["value"], axis=1)).key_path == "guard.parts[0].reduce"
    assert refusal(lambda d: change(d, 1, reduce=["mean"], axis=2)).key_path == "guard.parts[0].axis"

    def dynamic(document: dict[str, Any], n: int, **part: object) -> None:
        change(document, n, **part)
        document["inputs"][0]["shape"] = ["batch", "time", 6]
        document["hybrid"] = None

    accepted(lambda d: dynamic(d, 6, reduce=["mean"], axis=1))
    accepted(lambda d: dynamic(d, 1, reduce=["mean"]))
    assert refusal(lambda d: dynamic(d, 1, reduce=["mean"], axis=0)).key_path == "guard.parts[0].axis"
    assert refusal(lambda d: dynamic(d, 1, reduce=["value"])).key_path == "guard.parts[0].reduce"


def test_confidence_needs_one_float_logit_a_label() -> None:
    where = "artifacts[0].confidence"
    assert refusal(lambda d: bundles.put(d, "outputs[0].shape", ["batch", 4])).key_path == where
    assert refusal(lambda d: bundles.put(d, "outputs[0].shape", ["batch", "classes"])).key_path == where
    assert refusal(lambda d: bundles.put(d, "outputs[0].shape", [])).key_path == where
    assert refusal(lambda d: bundles.put(d, "outputs[0].shape", ["batch", 2, 3])).key_path == where
    assert refusal(lambda d: bundles.put(d, "outputs[0].shape", ["time", 3])).key_path == where
    for shape in ([3], ["batch", 1, 3]):
        accepted(lambda d, s=shape: bundles.put(d, "outputs[0].shape", s))  # type: ignore[misc]
    assert refusal(lambda d: bundles.put(d, "outputs[0].dtype", "int8")).key_path == where
    assert refusal(lambda d: d.update(labels=[], task=None)).key_path == where


def test_a_model_without_labels_has_no_classes_and_no_confidence() -> None:
    def change(document: dict[str, Any]) -> None:
        document.update(labels=[], task=None)
        document["artifacts"][0]["confidence"] = None
        document["artifacts"][0]["reference"].update(classes=[], confidence=[])

    assert accepted(change).labels == ()
    for key, value in (("classes", [1.0]), ("confidence", [0.05] * 20)):

        def more(document: dict[str, Any], key: str = key, value: list[float] = value) -> None:
            change(document)
            document["artifacts"][0]["reference"][key] = value

        assert refusal(more).key_path == f"artifacts[0].reference.{key}"


@pytest.mark.parametrize(("labels", "cells"), [(1, 1), (31, 31), (32, 32), (33, 32), (4096, 32)])
def test_a_class_histogram_has_at_most_32_cells_the_last_for_all_others(labels: int, cells: int) -> None:
    names = [f"label {i}" for i in range(labels)]
    assert class_cells(names) == cells

    def change(document: dict[str, Any], given: int) -> None:
        document["labels"] = names
        document["outputs"][0]["shape"] = ["batch", labels]
        document["artifacts"][0]["reference"]["classes"] = [1 / given] * given

    accepted(lambda d: change(d, cells))
    for wrong in {cells - 1, cells + 1} - {0}:
        assert refusal(lambda d, w=wrong: change(d, w)).key_path == "artifacts[0].reference.classes"  # type: ignore[misc]


def test_value_takes_a_single_element() -> None:
    def change(document: dict[str, Any], shape: list[int | str]) -> None:
        document["inputs"][0]["shape"] = shape
        document["hybrid"] = None
        document["artifacts"][0]["reference"]["features"][0].update(reduce="value", index=0)

    for shape in (["batch", 6], [6], ["batch", 1, 6], ["batch"], []):
        accepted(lambda d, s=shape: change(d, s))  # type: ignore[misc]
    for shape in (["batch", 100, 6], ["batch", "time", 6], [2, 6]):
        assert refusal(lambda d, s=shape: change(d, s)).key_path.endswith(".reduce")  # type: ignore[misc]


def test_a_feature_needs_a_last_axis_of_fixed_size() -> None:
    def change(document: dict[str, Any], shape: list[int | str]) -> None:
        document["inputs"][0]["shape"] = shape
        document["hybrid"] = None

    accepted(lambda d: change(d, ["batch", "time", 6]))
    for shape in (["batch", "time"], ["time"], ["batch", 6, "time"]):
        assert refusal(lambda d, s=shape: change(d, s)).key_path.endswith("features[0].input")  # type: ignore[misc]


def test_lists_are_capped() -> None:
    for path, element, cap in (
        ("inputs", {"name": "i{}", "dtype": "int8", "shape": []}, 64),
        ("labels", "label {}", 4096),
        ("artifacts[0].operators", "Op{}", 1024),
        ("artifacts[0].float_operators", "node {}", 4096),
        ("segments", {"name": "s{}", "rows": 1, "accuracy": 1}, 256),
        ("edge_cases", {"name": "s{}", "rows": 1, "accuracy": 1}, 256),
        ("artifacts[0].kept_float", {"unit": "u{}", "reason": "r"}, 1024),
        ("lineage.seeds", 7, 64),
    ):
        text = json.dumps(element)
        elements = [json.loads(text.replace("{}", str(i))) for i in range(cap + 1)]
        error = refusal(lambda d, p=path, e=elements: bundles.put(d, p, e))  # type: ignore[misc]
        assert (error.key_path, f"not {cap + 1}" in str(error)) == (path, True)


def test_an_oversized_manifest_is_refused_unread() -> None:
    document = bundles.document()
    document["padding"] = "x" * 1_048_576
    with pytest.raises(ManifestError, match="at most 1048576 are read"):
        read_manifest(encode(document))


def test_a_writer_cannot_write_what_a_reader_refuses() -> None:
    manifest = bundles.manifest()
    for wrong in (
        replace(manifest, model="../x"),
        replace(manifest, release=0),
        replace(manifest, format=2),
        replace(manifest, labels=("a", "a", "b")),
        replace(manifest, owner="\ud800"),
        replace(
            manifest,
            inputs=(TensorSpec(name="window", dtype="float32", shape=("batch", 6), range=(float("nan"), 1.0)),),
        ),
        replace(manifest, artifacts=(bundles.artifact(golden=b"", file="a.onnx"),)),
        replace(
            manifest,
            preprocessing=Preprocessing(in_graph="", caller="", examples=FileRef(file="x", bytes=1, sha256="0")),
        ),
        replace(manifest, critical=("future",)),
    ):
        with pytest.raises(ManifestError):
            write_manifest(wrong)


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, 1 + 2j])
def test_a_value_without_json_form_is_named_by_its_path(value: object) -> None:
    with pytest.raises(ManifestError, match="has no JSON form") as caught:
        write_manifest(replace(bundles.manifest(), owner=value))  # type: ignore[arg-type]
    assert caught.value.key_path == "owner"


def test_lists_in_place_of_tuples_are_refused_by_the_writer_since_they_would_not_read_back_equal() -> None:
    with pytest.raises(ManifestError, match="use tuples"):
        write_manifest(replace(bundles.manifest(), labels=list(bundles.LABELS)))  # type: ignore[arg-type]


def test_numpy_numbers_are_written_as_plain_numbers() -> None:
    np = pytest.importorskip("numpy")
    edges = tuple(np.linspace(-1, 1, 17))
    manifest = replace(
        bundles.manifest(),
        artifacts=(bundles.artifact(reference=bundles.reference(features=(bundles.feature(edges=edges),))),),
    )
    assert read_manifest(write_manifest(manifest)) == manifest


def test_every_file_is_listed_with_the_path_of_its_reference() -> None:
    files = {path: ref.file for path, ref in manifest_files(bundles.manifest())}
    assert files == {
        "artifacts[0]": "model-fp32.onnx",
        "artifacts[0].golden": "model-fp32.onnx.golden.npz",
        "preprocessing.examples": "examples.npz",
        "card": "card.md",
    }


def test_an_artifact_names_its_kind() -> None:
    assert bundles.artifact(target="tflite", precision="int8").kind == "tflite/int8"
