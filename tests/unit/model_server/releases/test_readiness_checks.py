"""What the built-in checks let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_runtime.bundle import Manifest
from model_server.releases.readiness.checks import CheckName, builtin_checks
from tests.support import bundles

READY = bundles.manifest()
ONNX = READY.artifacts[0]


def failed(
    manifest: Manifest, newest: Manifest | None = None, drop: float | None = None, *, allowed: bool = False
) -> dict[str, str]:
    checks = builtin_checks(manifest, newest, max_accuracy_drop=drop, allow_interface_change=allowed)
    assert [check.name for check in checks] == list(CheckName)
    return {check.name: check.detail for check in checks if not check.passed}


def measured(*values: dict[str, Any]) -> Manifest:
    """An artifact for each: fp32, then others."""
    precisions = ("fp32", "int8", "int8-dynamic")
    return replace(
        READY,
        artifacts=tuple(
            replace(ONNX, precision=precision, measured=replace(ONNX.measured, **value))
            for precision, value in zip(precisions, values, strict=False)
        ),
    )


def test_a_release_in_which_everything_is_stated_passes() -> None:
    assert failed(READY, READY, 0.5) == {}


@pytest.mark.parametrize("text", ["not stated", "Not stated ", "  "])
def test_somebody_must_answer_for_it(text: str) -> None:
    assert failed(replace(READY, owner=text, contact=text)) == {"owner": "no owner and no contact is stated"}
    assert failed(replace(READY, contact=text)) == {"owner": "no contact is stated"}


def test_every_artifact_must_be_measured_in_the_way_that_its_data_allows() -> None:
    unlabelled = {"accuracy": None, "decision_agreement": 0.99}
    nothing = {"accuracy": None, "decision_agreement": None, "max_abs_error": None}
    assert failed(measured({}, {"accuracy": None})) == {"measured": "no accuracy on held-out rows of onnx/int8"}
    assert failed(measured({"rows": 0})) == {"measured": "no accuracy on held-out rows of onnx/fp32"}
    assert failed(measured(unlabelled, unlabelled)) == {}
    assert failed(measured(unlabelled, nothing)) == {
        "measured": "no agreement with the source on held-out rows of onnx/int8"
    }


def test_no_artifact_may_lose_more_than_the_limit_if_there_is_one() -> None:
    source = {"source_accuracy": None}
    lossy = measured({"accuracy": 0.9, **source}, {"accuracy": 0.88, **source}, {"accuracy": 0.85, **source})
    assert failed(lossy) == {}
    assert failed(lossy, drop=0.05) == {}
    says = "onnx/int8-dynamic 0.8500: more than 0.02 below 0.9000, the accuracy in float"
    assert failed(lossy, drop=0.02) == {"accuracy-kept": says}
    only = measured({"accuracy": 0.9, "source_accuracy": 0.95})
    assert "more than 0.02 below 0.9500" in failed(only, drop=0.02)["accuracy-kept"]
    alone = measured({"accuracy": None, "source_accuracy": None, "decision_agreement": 1.0})
    assert "to compare with" in failed(alone, drop=0.1)["accuracy-kept"]


def test_personal_data_needs_the_purpose_that_people_consented_to() -> None:
    def lineage(**values: object) -> Manifest:
        return replace(READY, lineage=replace(READY.lineage, **values))  # type: ignore[arg-type]

    assert failed(lineage(personal_data=True, consent_purpose="coaching")) == {}
    assert failed(lineage(personal_data=False, consent_purpose=None)) == {}
    for purpose in (None, " "):
        assert "personal-data" in failed(lineage(personal_data=True, consent_purpose=purpose))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": (replace(bundles.WINDOW, name="frame"),)}, "input window is gone; input frame is new"),
        ({"inputs": (bundles.WINDOW, bundles.CONTEXT)}, "input context is new"),
        ({"inputs": (replace(bundles.WINDOW, dtype="int8"),)}, "input window is int8, was float32"),
        ({"outputs": (replace(bundles.LOGITS, shape=("batch", 3, 1)),)}, "output logits has 3 axes, had 2"),
    ],
)
def test_apps_of_the_published_release_must_be_able_to_call_the_new_one(change: dict[str, Any], says: str) -> None:
    new = replace(READY, **change)
    assert failed(new, READY)["interface-kept"] == f"not as release 2: {says}"
    assert failed(new, READY, allowed=True) == {}
    checks = builtin_checks(new, READY, max_accuracy_drop=None, allow_interface_change=True)
    assert says in checks[-1].detail, "whoever signs reads what was allowed"


def test_sizes_of_axes_may_change() -> None:
    assert failed(replace(READY, outputs=(replace(bundles.LOGITS, shape=("batch", 4)),)), READY) == {}
