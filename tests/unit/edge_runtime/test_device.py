"""What a device is, and which artifact fits it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.bundle import Artifact, Manifest, Requirements
from edge_runtime.device import Device, choose_artifact, fits
from edge_runtime.errors import ConfigurationError, Outcome, UpdateError
from tests.support import tiny

BASE = tiny.release(1)
BOARD = Device(
    id="d", attributes={"arch": "aarch64", "os": "linux", "ram_bytes": 512 * 2**20, "onnx_version": "1.22.1"}
)


def artifact(**values: Any) -> Artifact:
    return dataclasses.replace(BASE.artifact, **values)


def manifest(*kinds: tuple[str, str], **values: Any) -> Manifest:
    artifacts = tuple(artifact(target=t, precision=p, file=f"tiny-{p}.{t}") for t, p in kinds)
    return dataclasses.replace(BASE.manifest, artifacts=artifacts, **values)


def test_the_id_is_made_once_and_kept(tmp_path: Path) -> None:
    first = Device.detect(tmp_path / "state")
    assert Device.detect(tmp_path / "state").id == first.id
    assert Device.detect(tmp_path / "other").id != first.id
    assert len(first.id) == 32


def test_the_id_comes_from_the_randomness_that_was_passed_in(tmp_path: Path) -> None:
    assert Device.detect(tmp_path, random=lambda n: b"\xab" * n).id == "ab" * 16


def test_a_damaged_id_is_replaced(tmp_path: Path) -> None:
    first = Device.detect(tmp_path)
    (tmp_path / "device.json").write_bytes(b'{"id":"../../etc"}')
    second = Device.detect(tmp_path)
    assert second.id != first.id
    assert Device.detect(tmp_path).id == second.id


def test_detected_attributes_say_what_this_machine_is(tmp_path: Path) -> None:
    import platform

    attributes = Device.detect(tmp_path).attributes
    assert attributes["arch"] == platform.machine()
    assert attributes["os"] == platform.system().lower()
    assert "onnx_version" in attributes


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "x" * 129, "é"])
def test_an_id_outside_the_grammar_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="device id"):
        Device(id=bad)


@pytest.mark.parametrize(
    ("requirements", "changes", "reason"),
    [
        (Requirements(), {}, None),
        (Requirements(arch=("aarch64", "arm64"), os=("linux",), ram_bytes=2**20), {}, None),
        (Requirements(arch=("x86_64",)), {}, "x86_64"),
        (Requirements(os=("darwin",)), {}, "darwin"),
        (Requirements(ram_bytes=2**30), {}, "RAM"),
        (Requirements(), {"peak_memory_bytes": 2**30}, "peak"),
        (Requirements(), {"minimum_engine_version": "1.22"}, None),
        (Requirements(), {"minimum_engine_version": "1.23"}, "1.23"),
        (Requirements(), {"minimum_engine_version": "1.9"}, None),
        (Requirements(), {"target": "tflite", "minimum_engine_version": "9.0"}, None),
    ],
)
def test_requirements_are_compared_with_what_is_known(
    requirements: Requirements, changes: dict[str, Any], reason: str | None
) -> None:
    found = fits(requirements, artifact(**changes), BOARD)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_unknown_attributes_rule_nothing_out() -> None:
    requirements = Requirements(arch=("x86_64",), os=("linux",), ram_bytes=2**40)
    assert fits(requirements, artifact(), Device(id="d")) is None


def test_the_preferred_engine_comes_first_then_the_smallest_precision() -> None:
    both = manifest(("onnx", "fp32"), ("onnx", "int8"), ("tflite", "int8"), ("coreml", "int8"))
    assert choose_artifact(both, BOARD, ["onnx", "tflite"]).file == "tiny-int8.onnx"
    assert choose_artifact(both, BOARD, ["tflite", "onnx"]).file == "tiny-int8.tflite"
    assert choose_artifact(manifest(("onnx", "fp32"), ("tflite", "int8")), BOARD, ["onnx", "tflite"]).file == (
        "tiny-fp32.onnx"
    )
    assert choose_artifact(both, BOARD, ["onnx"], precisions=["fp32", "int8"]).file == "tiny-fp32.onnx"


def test_without_a_fitting_artifact_every_refusal_is_listed() -> None:
    with pytest.raises(UpdateError, match=r"tiny-int8.onnx needs x86_64.*tiny-int8.tflite needs x86_64") as caught:
        choose_artifact(
            manifest(("onnx", "int8"), ("tflite", "int8"), requirements=Requirements(arch=("x86_64",))),
            BOARD,
            ["onnx", "tflite"],
        )
    assert caught.value.outcome is Outcome.INCOMPATIBLE
    with pytest.raises(UpdateError, match="artifacts for coreml, this device has engines for onnx"):
        choose_artifact(manifest(("coreml", "int8")), BOARD, ["onnx"])
