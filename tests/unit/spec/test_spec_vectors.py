"""Every vector of docs/spec/vectors against this project's own code."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.bundle import (
    BundleError,
    Feature,
    Manifest,
    ManifestError,
    UnsupportedFormat,
    errors,
    open_bundle,
    read_manifest,
    write_manifest,
)
from edge_runtime.enrolment.protocol import (
    audience,
    claims,
    from_base64url,
    signing_input,
    statement,
    to_base64url,
)
from edge_runtime.errors import ReportError
from edge_runtime.guard import GuardScorer, summaries
from edge_runtime.hybrid.deferral import deferred, score, score_probabilities
from edge_runtime.telemetry.layout import LATENCY_CLOUD, LATENCY_DEVICE, Layout, latency_bin, latency_cell
from edge_runtime.telemetry.wire import PrivacyMode, ReportArm, ReportHeader, decode_report, encode_report
from edge_runtime.update.delta import DeltaDamaged, apply
from edge_runtime.update.plan import Plan, arm, bucket, ceiling_share, evaluate, wanted
from model_server.enrolment.assertions import verify
from model_server.errors import Unauthorized
from tests.support import bundles

VECTORS = Path(__file__).parents[3] / "docs/spec/vectors"
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in VECTORS.glob("*.json")}


def vectors(file: str, key: str) -> Any:
    """The vectors as parameters, numbered."""
    return pytest.mark.parametrize("vector", FILES[file][key], ids=range(len(FILES[file][key])))


def number(value: float | str) -> float:
    return float(value.lower().replace("infinity", "inf")) if isinstance(value, str) else value


def test_every_vector_file_says_how_to_use_it() -> None:
    expected = "bundle deferral delta enrolment guard histograms manifest outcomes plan telemetry"
    assert sorted(FILES) == expected.split()
    for file in FILES.values():
        assert len(file["about"]) > 40


# Bundle


def changed(base: Any, vector: dict[str, Any]) -> bytes:
    document = copy.deepcopy(base)
    for keys, value in vector.get("set", []):
        place = document
        for key in keys[:-1]:
            place = place[key]
        if isinstance(place, list) and keys[-1] == len(place):
            place.append(value)
        else:
            place[keys[-1]] = value
    for keys in vector.get("remove", []):
        place = document
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
    return json.dumps(document).encode()


def refuses(data: bytes, vector: dict[str, Any]) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(data)
    assert (
        type(caught.value) is {"ManifestError": ManifestError, "UnsupportedFormat": UnsupportedFormat}[vector["error"]]
    )
    assert caught.value.key_path == vector["key_path"]


@vectors("manifest", "accepted")
def test_manifests_that_are_read(vector: dict[str, Any]) -> None:
    manifest = read_manifest(changed(FILES["manifest"]["base"], vector))
    assert read_manifest(write_manifest(manifest)) == manifest


@vectors("manifest", "refused")
def test_manifests_that_are_refused(vector: dict[str, Any]) -> None:
    refuses(changed(FILES["manifest"]["base"], vector), vector)


@vectors("manifest", "texts")
def test_manifests_that_are_refused_as_text(vector: dict[str, Any]) -> None:
    base = json.dumps(FILES["manifest"]["base"])
    data = base64.b64decode(vector["base64"]) if "base64" in vector else f"{base[:-1]},{vector['member']}}}".encode()
    refuses(data, vector)


def test_the_bundle_that_is_read() -> None:
    bundle = open_bundle(base64.b64decode(FILES["bundle"]["base64"]))
    assert bundle.sha256 == FILES["bundle"]["sha256"]
    assert {name: bundles.sha256(bundle.read(name)) for name in bundle.files} == FILES["bundle"]["files"]


@vectors("bundle", "refused")
def test_bundles_that_are_refused(vector: dict[str, Any]) -> None:
    data = base64.b64decode(FILES["bundle"]["base64"])
    at = vector["at"]
    with pytest.raises(BundleError) as caught:
        open_bundle(data[:at] + base64.b64decode(vector["insert"]) + data[at + vector["delete"] :])
    assert type(caught.value) is getattr(errors, vector["error"])


# Plan


@vectors("plan", "buckets")
def test_buckets(vector: dict[str, Any]) -> None:
    assert bucket(vector["salt"], vector["device"]) == vector["bucket"]
    assert int(vector["sha256_first8"], 16) % 10**8 == vector["bucket"]


@vectors("plan", "predicates")
def test_predicates(vector: dict[str, Any]) -> None:
    assert evaluate(vector["predicate"], vector["attributes"]) is vector["result"]


@vectors("plan", "ceilings")
def test_ceilings(vector: dict[str, Any]) -> None:
    assert ceiling_share([(age, share) for age, share in vector["ceiling"]], vector["age_s"]) == vector["share"]


@vectors("plan", "decisions")
def test_decisions(vector: dict[str, Any]) -> None:
    plan = Plan.from_json(json.dumps(vector["plan"]).encode())
    ceiling = [(age, share) for age, share in vector["ceiling"]]
    asked = wanted(
        plan,
        vector["device"],
        vector["attributes"],
        current=vector["current"],
        age_s=vector["age_s"],
        ceiling=ceiling,
    )
    assert asked == vector["wanted"], vector["why"]
    assert arm(plan, vector["device"], vector["current"]) == vector["arm"], vector["why"]


@vectors("plan", "documents")
def test_plan_documents(vector: dict[str, Any]) -> None:
    data = vector["text"].encode()
    if vector["error"] is None:
        Plan.from_json(data)
        return
    with pytest.raises(ManifestError) as caught:
        Plan.from_json(data)
    assert type(caught.value).__name__ == vector["error"]
    assert caught.value.key_path == vector["key_path"]


# Deferral


@vectors("deferral", "cases")
def test_deferral(vector: dict[str, Any]) -> None:
    scored = score(vector["logits"], vector["temperature"])
    assert scored is not None
    index, confidence = scored
    assert index == vector["index"]
    assert confidence == pytest.approx(vector["confidence"], abs=1e-9)
    assert deferred(confidence, vector["threshold"]) is vector["deferred"]


@vectors("deferral", "probability_cases")
def test_deferral_from_probabilities(vector: dict[str, Any]) -> None:
    scored = score_probabilities(vector["probabilities"], vector["temperature"])
    assert scored is not None
    index, confidence = scored
    assert index == vector["index"]
    assert confidence == pytest.approx(vector["confidence"], abs=1e-9)
    assert deferred(confidence, vector["threshold"]) is vector["deferred"]


@vectors("deferral", "no_answer")
def test_logits_that_are_no_answer(vector: dict[str, Any]) -> None:
    assert score([number(logit) for logit in vector["logits"]]) is None
    assert score_probabilities([number(logit) for logit in vector["logits"]]) is None


# Guard


def guarded(vector: dict[str, Any]) -> tuple[Manifest, dict[str, np.ndarray[Any, Any]]]:
    """The manifest that holds a vector's guard, read as a device reads it, and the example as an engine takes it."""
    document = bundles.document()
    document.update(inputs=vector["inputs"], guard=vector["guard"], hybrid=None)
    document["artifacts"][0]["reference"] = None
    manifest = read_manifest(json.dumps(document).encode())
    example = {}
    for spec in manifest.inputs:
        text = json.dumps(vector["example"][spec.name])
        given = np.array(json.loads(text.replace('"', "")), dtype=spec.dtype)
        if not given.size:
            given = given.reshape([0 if isinstance(axis, str) else axis for axis in spec.shape])
        example[spec.name] = given[np.newaxis] if spec.shape[:1] == ("batch",) else given
    return manifest, example


@vectors("guard", "cases")
def test_guard_scores(vector: dict[str, Any]) -> None:
    manifest, example = guarded(vector)
    assert manifest.guard is not None
    scorer = GuardScorer(manifest.guard, manifest.inputs)
    rows = {
        spec.name: example[spec.name] if spec.shape[:1] == ("batch",) else example[spec.name][np.newaxis]
        for spec in manifest.inputs
    }
    found = summaries(manifest.guard.parts, rows)[0]
    assert found.tolist() == pytest.approx(vector["summaries"], rel=1e-9, abs=1e-9)
    score = scorer.score(example)
    assert score == pytest.approx(vector["score"], rel=1e-9, abs=1e-9)
    assert (score > scorer.threshold) is vector["outside"]


@vectors("guard", "infinite")
def test_guard_scores_that_are_infinite(vector: dict[str, Any]) -> None:
    manifest, example = guarded(vector)
    assert manifest.guard is not None
    assert GuardScorer(manifest.guard, manifest.inputs).score(example) == math.inf


# Histograms


@vectors("histograms", "reductions")
def test_reductions(vector: dict[str, Any]) -> None:
    np = pytest.importorskip("numpy")
    from edge_runtime.telemetry.features import feature_values

    feature = bundles.feature(input="x", reduce=vector["reduce"], index=vector["index"])
    example = np.array(vector["data"], np.float64).reshape(vector["shape"])
    [[value]] = feature_values([feature], {"x": example[None]}).tolist()
    assert value == pytest.approx(vector["value"], abs=1e-9)


@vectors("histograms", "cells")
def test_cells(vector: dict[str, Any]) -> None:
    np = pytest.importorskip("numpy")
    from edge_runtime.telemetry.features import feature_cells

    assert feature_cells(FILES["histograms"]["edges"], np.array([number(vector["value"])])).tolist() == [vector["cell"]]


@vectors("histograms", "classes")
def test_class_cells(vector: dict[str, Any]) -> None:
    assert _counted(index=vector["index"])["classes"][vector["cell"]] == 1


@vectors("histograms", "confidences")
def test_confidence_cells(vector: dict[str, Any]) -> None:
    assert _counted(confidence=vector["confidence"])["confidence"][vector["cell"]] == 1


@vectors("histograms", "latencies")
def test_latency_bins_and_cells(vector: dict[str, Any]) -> None:
    assert latency_bin(vector["microseconds"]) == vector["bin"]
    assert latency_cell(LATENCY_DEVICE, vector["bin"]) == vector["device_cell"]
    assert latency_cell(LATENCY_CLOUD, vector["bin"]) == vector["cloud_cell"]


def _counted(index: int | None = None, confidence: float | None = None) -> dict[str, tuple[int, ...]]:
    from edge_runtime.telemetry.histograms import Histograms

    histograms = Histograms(_layout([], "onnx/fp32"))
    histograms.observe({}, index, confidence, 0)
    return histograms.counts()


# Telemetry


def _layout(features: list[dict[str, Any]], kind: str) -> Layout:
    target, _, precision = kind.partition("/")
    made = tuple(
        Feature(**{**feature, "edges": tuple(feature["edges"])}, shares=(0.0, *[1 / 16] * 16, 0.0, 0.0))
        for feature in features
    )
    artifact = bundles.artifact(target=target, precision=precision, reference=bundles.reference(features=made))
    return Layout.of(artifact)


@vectors("telemetry", "layouts")
def test_layouts(vector: dict[str, Any]) -> None:
    layout = _layout(vector["features"], "onnx/fp32")
    assert [list(histogram) for histogram in layout.histograms] == vector["histograms"]
    assert layout.digest.hex() == vector["layout"]


def test_a_negative_zero_among_the_edges_is_zero_in_the_layout_digest() -> None:
    [feature] = FILES["telemetry"]["layouts"][1]["features"]
    assert 0.0 in feature["edges"]
    negative = {**feature, "edges": [-0.0 if edge == 0 else edge for edge in feature["edges"]]}
    assert _layout([negative], "onnx/fp32").digest == _layout([feature], "onnx/fp32").digest


@vectors("telemetry", "packs")
def test_packed_histograms(vector: dict[str, Any]) -> None:
    from edge_runtime.telemetry.histograms import Histograms

    layout = _layout([], "onnx/fp32")
    histograms = Histograms(layout)
    histograms.add_counts({"reasons": vector["counts"]})
    header = ReportHeader(
        mode=PrivacyMode.PLAIN, arm=ReportArm.NONE, release=1, day=0, daily_id=bytes(16), model="m", kind="onnx/fp32"
    )
    wire = encode_report(header, histograms)
    assert list(wire[-34:-17]) == [vector["shift"], *vector["cells"]]  # reasons stands before refused


@vectors("telemetry", "reports")
def test_reports_are_decoded_as_stated_and_encoded_again_the_same(vector: dict[str, Any]) -> None:
    from edge_runtime.telemetry.histograms import Histograms

    decoded = vector["decoded"]
    layout = _layout(vector["features"], decoded["artifact"])
    wire = bytes.fromhex(vector["wire"])
    asked: list[tuple[str, int, str]] = []

    def layouts(model: str, release: int, kind: str) -> Layout:
        asked.append((model, release, kind))
        return layout

    report = decode_report(wire, layouts)
    assert asked == [(decoded["model"], decoded["release"], decoded["artifact"])]
    assert report.header.mode.name.lower() == decoded["mode"]
    assert report.header.arm.name.lower() == decoded["arm"]
    assert report.header.day == decoded["day"]
    assert report.header.daily_id.hex() == decoded["daily_id"]
    assert layout.digest.hex() == decoded["layout"]
    assert {name: list(counts) for name, counts in report.counts.items()} == {
        h["name"]: [cell << h["shift"] for cell in h["cells"]] for h in decoded["histograms"]
    }
    histograms = Histograms(layout)
    histograms.add_counts(report.counts)
    assert encode_report(report.header, histograms) == wire


@vectors("telemetry", "refused")
def test_reports_that_are_refused(vector: dict[str, Any]) -> None:
    good = FILES["telemetry"]["reports"][-1]["decoded"]
    layout = _layout(vector["features"], good["artifact"])
    known = (good["model"], good["release"], good["artifact"])
    with pytest.raises(ReportError):
        decode_report(bytes.fromhex(vector["wire"]), lambda *asked: layout if asked == known else None)


def test_twenty_features_make_the_size_that_the_words_state() -> None:
    feature = FILES["telemetry"]["layouts"][1]["features"][0]
    layout = _layout([{**feature, "name": f"f{i}"} for i in range(20)], "onnx/int8")
    from edge_runtime.telemetry.histograms import Histograms

    header = ReportHeader(
        mode=PrivacyMode.CENTRAL, arm=ReportArm.NONE, release=1, day=0, daily_id=bytes(16), model="m", kind="onnx/int8"
    )
    size = len(encode_report(header, Histograms(layout))) - len("m") - len("onnx/int8")
    assert size == 850
    assert "20 features make 850 bytes and the names" in (VECTORS.parent / "telemetry.md").read_text(encoding="utf-8")
    assert math.isclose(size + 64 + 19, 933)  # the longest names: still below the 1,100 that the design allows


# Outcomes: what the server's model takes and refuses, the schema does too (test_spec_documents.py has the schema).


@vectors("outcomes", "accepted")
def test_outcome_reports_that_the_server_takes(vector: dict[str, Any]) -> None:
    api = pytest.importorskip("model_server.rollouts.api")
    api.ReportBody.model_validate_json(json.dumps(vector))


@vectors("outcomes", "refused")
def test_outcome_reports_that_the_server_refuses(vector: dict[str, Any]) -> None:
    api = pytest.importorskip("model_server.rollouts.api")
    with pytest.raises((ValueError, BundleError)):
        api.ReportBody.model_validate_json(json.dumps(vector["document"]))


def test_vectors_of_manifests_have_the_base_that_the_bundle_holds() -> None:
    bundle = open_bundle(base64.b64decode(FILES["bundle"]["base64"]))
    assert read_manifest(json.dumps(FILES["manifest"]["base"]).encode()) == bundle.manifest
    assert replace(bundle.manifest, release=3) != bundle.manifest


# Deltas


@vectors("delta", "deltas")
def test_delta_makes_the_new_file(vector: dict[str, Any]) -> None:
    old, patch = base64.b64decode(vector["old"]), base64.b64decode(vector["delta"])
    assert _applied(old, patch, vector["length"]) == base64.b64decode(vector["new"])


@vectors("delta", "refused")
def test_delta_is_refused(vector: dict[str, Any]) -> None:
    old, patch = base64.b64decode(vector["old"]), base64.b64decode(vector["delta"])
    with pytest.raises(DeltaDamaged):
        _applied(old, patch, vector["length"])


def _applied(old: bytes, patch: bytes, length: int) -> bytes:
    made = bytearray()
    apply(
        io.BytesIO(old),
        io.BytesIO(patch),
        old_sha256=hashlib.sha256(old).hexdigest(),
        old_length=len(old),
        new_length=length,
        write=made.extend,
    )
    return bytes(made)


# Enrolment

ENROLMENT = FILES["enrolment"]
PUBLIC_KEY = from_base64url(ENROLMENT["enrolment"]["public_key"])


def test_a_device_proves_its_key_as_the_vector_does() -> None:
    vector = ENROLMENT["enrolment"]
    key = Ed25519PrivateKey.from_private_bytes(from_base64url(ENROLMENT["secret_key"]))
    signed = statement(vector["token"], vector["device"], PUBLIC_KEY)
    assert key.public_key().public_bytes_raw() == PUBLIC_KEY
    assert signed.decode() == vector["statement"]
    assert to_base64url(key.sign(signed)) == vector["proof"]


def test_a_device_signs_as_the_first_vector_does() -> None:
    first = ENROLMENT["assertions"][0]
    key = Ed25519PrivateKey.from_private_bytes(from_base64url(ENROLMENT["secret_key"]))
    now, body = datetime.fromtimestamp(first["now"], UTC), ENROLMENT["body"].encode()
    assert audience(ENROLMENT["root"].encode()) == ENROLMENT["audience"]
    made = claims(ENROLMENT["enrolment"]["device"], ENROLMENT["audience"], now, body)
    assert made == ENROLMENT["claims"]
    text = signing_input(made)
    assert f"{text}.{to_base64url(key.sign(text.encode()))}" == first["assertion"]


@vectors("enrolment", "assertions")
def test_a_server_judges_an_assertion_as_the_vector_says(vector: dict[str, Any]) -> None:
    device = ENROLMENT["enrolment"]["device"]

    def judge() -> tuple[str, str]:
        return verify(
            vector["assertion"],
            {device: PUBLIC_KEY}.get,
            ENROLMENT["audience"].__eq__,
            datetime.fromtimestamp(vector["now"], UTC),
        )

    if vector["accepted"]:
        assert judge() == (device, ENROLMENT["claims"]["body_sha256"])
    else:
        with pytest.raises(Unauthorized):
            judge()
